"""`e2ee link` and `e2ee devices`: real processes, two homes of one user, one server."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2ee.wire.link import LinkId, link_code
from tests.cli_processes import PATIENCE_SECONDS, Desk, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        for user in ("alice", "bob"):
            desk.init(user)
        yield desk


@dataclass
class Running:
    """A command that prints JSON and is asked things."""

    process: "subprocess.Popen[bytes]"

    def told(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read().decode()
        fields: dict[str, Any] = json.loads(line)
        return fields

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert "Traceback" not in err.decode(), err
        return self.process.returncode, err.decode()


@pytest.fixture
def start(desk: Desk) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> Running:
        process = desk.start(*arguments, "--json")
        started.append(process)
        return Running(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def begin(desk: Desk, start: Any, home: str, *more: str) -> tuple[Running, str]:
    new = start("link", "alice", "--server", desk.server, "--dev", "--home", home, *more)
    return new, new.told()["code"]


def link(desk: Desk, start: Any, home: str) -> dict[str, Any]:
    new, code = begin(desk, start, home)
    old = start("link", "--approve", code, "--home", "alice")
    shown = old.told(), new.told()
    assert shown[0] == shown[1]
    for each in (old, new):
        each.say("yes\n")
    ended: dict[str, Any] = new.told()
    assert old.told()["device"] == ended["device"]
    assert (old.end()[0], new.end()[0]) == (0, 0)
    return ended


def received(desk: Desk, home: str) -> list[str]:
    ended = desk.call("receive", "--json", "--home", home)
    assert ended.code == 0, ended.err
    return [json.loads(line)["text"] for line in ended.out.splitlines()]


def verified(desk: Desk, home: str) -> bool:
    shown = json.loads(desk.call("verify", "bob", "--json", "--home", home).out)
    assert [each["decision"] for each in shown["decisions"]][:2] == ["pinned", "verified"]
    return bool(shown["verified"])


def test_a_second_device_is_linked_listed_written_to_and_retired(desk: Desk, start: Any) -> None:
    assert desk.call("send", "bob", "hello", "--home", "alice").code == 0
    assert received(desk, "bob") == ["hello"]
    number = json.loads(desk.call("verify", "alice", "--json", "--home", "bob").out)["safety_number"]
    assert desk.call("verify", "bob", "--number", number, "--home", "alice").code == 0

    linked = link(desk, start, "laptop")
    assert (linked["user"], linked["contacts"]) == ("alice", 1)
    assert verified(desk, "laptop")
    assert desk.call("contacts", "--home", "laptop").out == "bob, verified\n"
    listed = json.loads(desk.call("devices", "--json", "--home", "laptop").out)
    assert [each["device"] for each in listed["devices"] if each["this"]] == [linked["device"]]
    assert sorted(each["device"] for each in listed["devices"]) == sorted(linked["devices"])
    assert json.loads(desk.call("status", "--json", "--home", "laptop").out)["registered"] is True

    assert desk.call("send", "alice", "to both", "--home", "bob").code == 0
    assert received(desk, "alice") == received(desk, "laptop") == ["to both"]
    assert desk.call("send", "bob", "from the laptop", "--home", "laptop").code == 0
    assert received(desk, "bob") == ["from the laptop"]

    itself = desk.call("devices", "retire", linked["device"], "--home", "laptop")
    assert (itself.code, itself.out) == (2, "")
    assert itself.remark == "this is the device itself: retire it on another one"
    retired = desk.call("devices", "retire", linked["device"][:8].upper(), "--home", "alice", "--json")
    assert (retired.code, json.loads(retired.out)["retired"]) == (0, linked["device"])
    assert linked["device"] not in desk.call("devices", "--home", "alice").out
    gone = desk.call("receive", "--home", "laptop")
    assert gone.code == 1
    assert "device_revoked" in gone.err
    assert desk.call("send", "alice", "to one", "--home", "bob").code == 0
    assert received(desk, "alice")[-1] == "to one"  # perhaps after a copy of what the laptop said


def test_a_lost_device_is_out_and_contacts_are_told_to_look(desk: Desk, start: Any) -> None:
    desk.init("carol")
    assert desk.call("send", "carol", "hello", "--home", "bob").code == 0
    assert received(desk, "carol") == ["hello"]
    refused = desk.call("devices", "lost", "--home", "carol")
    assert (refused.code, refused.out) == (2, "")
    assert refused.remark.endswith("If that is meant, add --yes")
    done = desk.call("devices", "lost", "--yes", "--json", "--home", "carol")
    assert (done.code, json.loads(done.out)["removed"]) == (0, [])
    assert desk.call("send", "bob", "new key", "--home", "carol").code == 0
    told = desk.call("receive", "--home", "bob")
    assert "the account key of carol has changed: see 'e2ee verify carol'" in told.err


@pytest.mark.parametrize("answer", ["yes, I think\n"])
def test_anything_but_yes_ends_it_and_nothing_is_taken_over(desk: Desk, start: Any, answer: str) -> None:
    home = f"declined {answer.strip()}"
    before = desk.call("devices", "--json", "--home", "alice").out
    new, code = begin(desk, start, home)
    old = start("link", "--approve", code, "--home", "alice")
    for each in (new, old):
        each.told()
        each.say(answer)
    for each in (new, old):
        code_, err = each.end()
        assert (code_, err.count("\n")) == (1, 1)
        assert "The two devices were not confirmed to show the same. Nothing was taken over" in err
    assert desk.call("devices", "--json", "--home", "alice").out == before
    assert desk.call("devices", "--home", home).code == 2
    shutil.rmtree(desk.directory / home)


def test_a_code_is_carried_over_as_a_picture(desk: Desk, start: Any) -> None:
    new, _ = begin(desk, start, "pictured", "--qr", "code.png")
    old = start("link", "--scan", "code.png", "--home", "alice")
    assert old.told()["digits"] == new.told()["digits"]


def test_a_store_that_has_a_device_is_not_linked_again(desk: Desk) -> None:
    ended = desk.call("link", "bob", "--server", desk.server, "--dev", "--home", "bob")
    assert (ended.code, ended.out) == (2, "")
    assert ended.remark == "there is a device in bob already: use it, or name another --home"


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        (("link",), "on the new device: e2ee link USER --server URL; on the other one: e2ee link --approve CODE"),
        (
            ("link", "alice"),
            "on the new device: e2ee link USER --server URL; on the other one: e2ee link --approve CODE",
        ),
        (
            ("link", "alice", "--server", "https://chat.example"),
            "say where the chat's tokens come from: --dev, --token-command or --token-file",
        ),
        (
            ("link", "alice", "--approve", "A" * 32, "--home", "alice"),
            "--approve and --scan take neither USER nor --server: this device knows both",
        ),
        (
            ("devices", "retire", "ffff", "--home", "alice"),
            "0 devices have an id that begins with 'ffff': see 'e2ee devices'",
        ),
    ],
)
def test_wrong_use_is_explained(desk: Desk, arguments: tuple[str, ...], remark: str) -> None:
    ended = desk.call(*arguments, env={"E2EE_HOME": "unused"})
    assert (ended.code, ended.out, ended.remark) == (2, "", remark)
    assert not (desk.directory / "unused").exists()


@pytest.mark.parametrize(
    "arguments", [("devices", "retire"), ("devices", "retire", "xyz"), ("devices", "erase"), ("link", "--approve")]
)
def test_wrong_arguments_are_explained(desk: Desk, arguments: tuple[str, ...]) -> None:
    ended = desk.call(*arguments, "--home", "alice")
    assert (ended.code, ended.out) == (2, "")
    assert "error: " in ended.err


def test_a_mistyped_and_an_unknown_code_are_refused(desk: Desk) -> None:
    mistyped = desk.call("link", "--approve", "A" * 32, "--home", "alice")
    assert (mistyped.code, mistyped.out) == (2, "")
    assert mistyped.remark.startswith("that is no code of 'e2ee link', or it was mistyped")
    unknown = desk.call("link", "--approve", link_code(LinkId(bytes(16))), "--home", "alice")
    assert (unknown.code, unknown.out) == (1, "")
    assert "link_not_found" in unknown.remark
    assert unknown.remark.endswith("It lasts ten minutes")


def test_options_count_before_and_after_the_action(desk: Desk) -> None:
    for arguments in (("--home", "alice", "retire", "ffff"), ("retire", "ffff", "--home", "alice")):
        assert "0 devices have an id" in desk.call("devices", *arguments).remark
