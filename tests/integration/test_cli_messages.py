"""`e2ee init`, `send`, `receive` and `status`, as scripts use them: real processes, real pipes, a real server."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2ee.cli.credentials import token_provider
from e2ee.cli.settings import Settings, store_path
from e2ee.limits import MAX_APPLICATION_DATA
from tests.cli_processes import PASSPHRASE, PATIENCE_SECONDS, Desk, Ended, serving
from transport_adapters import SecureClient


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        desk.init("alice")
        desk.init("bob")
        yield desk


def objects(ended: Ended) -> list[dict[str, Any]]:
    """Return the JSON objects of an output that holds nothing else, one on each line."""
    assert (ended.code, ended.err) == (0, "")
    return [json.loads(line) for line in ended.out.splitlines()]


def drained(desk: Desk) -> list[str]:
    return [each["text"] for each in objects(desk.call("receive", "--home", "bob", "--json"))]


def test_printf_into_send_arrives_and_is_shown_once(desk: Desk) -> None:
    sent = desk.shell("printf hi | e2ee send bob --home alice")
    received = desk.run("receive", "--home", "bob")

    assert (sent.code, sent.out, sent.err) == (0, "sent to bob\n", "")
    assert (received.code, received.err) == (0, "")
    assert received.out.endswith(" alice: hi\n")
    assert received.out.count("\n") == 1
    assert drained(desk) == []


def test_json_of_send_and_receive_names_the_same_message(desk: Desk) -> None:
    # Home from the environment, and the text after the options.
    command = ("send", "bob", "--conversation", "lunch", "--json", "tëxt\n\x1b[2J")
    (sent,) = objects(desk.run(*command, env={"E2EE_HOME": "alice"}))
    (received,) = objects(desk.run("receive", "--home", "bob", "--json"))

    assert sent["state"] == "sent"
    assert sent["message_id"] == received["message_id"]
    assert (received["sender"], received["conversation"], received["text"]) == ("alice", "lunch", "tëxt\n\x1b[2J")
    assert isinstance(received["sent_at"], int)


def test_bytes_that_are_no_text_and_the_largest_message_arrive(desk: Desk) -> None:
    binary = desk.call("send", "bob", "--binary", "--home", "alice", given=bytes(range(256)))
    largest = desk.call("send", "bob", "--home", "alice", given=b"x" * MAX_APPLICATION_DATA)
    first, second = objects(desk.call("receive", "--home", "bob", "--json"))

    assert (binary.code, largest.code) == (0, 0)
    assert first["base64"].startswith("AAECAwQF")
    assert "text" not in first
    assert second["text"] == "x" * MAX_APPLICATION_DATA


def test_output_that_cannot_be_written_loses_no_message(desk: Desk) -> None:
    desk.call("send", "bob", "kept", "--home", "alice")

    full = desk.shell("e2ee receive --home bob >/dev/full")
    closed = desk.shell("e2ee receive --home bob >&-")
    unread = desk.shell("exec 3> >(exit); wait $!; e2ee receive --home bob >&3; exit $?")

    assert (full.code, full.remark) == (2, "standard output cannot be written: No space left on device")
    assert (closed.code, closed.remark) == (2, "standard output is closed")
    assert (unread.code, unread.err) == (141, "")
    assert drained(desk) == ["kept"]


def test_reader_that_takes_one_line_loses_no_other(desk: Desk) -> None:
    chatted = desk.shell(r"printf 'line 0\nline 1\n\nline 2' | e2ee chat bob --home alice")
    # It ends after one line; head would have read more.
    piped = desk.shell('e2ee receive --home bob --json | { read -r line; echo "$line"; }; exit ${PIPESTATUS[0]}')

    assert (chatted.code, chatted.out) == (0, "")
    assert json.loads(piped.out)["text"] == "line 0"
    assert piped.err == ""
    # How much fitted into the pipe before its reader went is the system's matter; what did not is still there.
    assert (piped.code, drained(desk)) in [(0, []), (141, ["line 1", "line 2"]), (141, ["line 2"])]


def test_count_waits_for_messages_that_come_later_and_gives_up_in_time(desk: Desk) -> None:
    waiting = desk.start("receive", "--home", "bob", "--count", "2", "--json")
    desk.shell(r"printf 'first\nsecond\n' | e2ee chat bob --home alice")
    out, err = waiting.communicate(timeout=PATIENCE_SECONDS)
    in_vain = desk.call("receive", "--home", "bob", "--count", "1", "--timeout", "1")

    assert (waiting.returncode, err) == (0, b"")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["first", "second"]
    assert (in_vain.code, in_vain.out) == (3, "")
    # Which of the two is a matter of how soon it was connected: tests/unit/test_cli_waiting.py has both.
    assert "no message came in time" in in_vain.remark or "did not deliver a message in time" in in_vain.remark


def test_receipts_that_wait_do_not_keep_receive_from_ending(desk: Desk) -> None:
    desk.call("send", "bob", "please confirm", "--home", "alice")
    asyncio.run(read_and_confirm(desk))
    desk.call("send", "alice", "after the receipt", "--home", "bob")

    received = objects(desk.call("receive", "--home", "alice", "--json"))

    assert [each["text"] for each in received] == ["after the receipt"]


async def read_and_confirm(desk: Desk) -> None:
    """Do as bob what the command line does not: send a read receipt."""
    home = desk.directory / "bob"
    settings = Settings.load(home)
    async with await SecureClient.open(
        store=store_path(home), passphrase=PASSPHRASE, server=desk.server, token_provider=token_provider(settings)
    ) as bob:
        message = await anext(bob)
        await bob.mark_read(message)
        await message.done()
        await bob.flushed()


def test_passphrase_and_token_files_are_remembered_by_init(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\na second line does not matter\n")
    token = httpx.post(f"{desk.server}/dev/token", json={"user": "carol"}).json()["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    init = f"e2ee init carol --server {desk.server} --home carol --passphrase-file passphrase --token-file token"

    made = desk.shell(f"unset E2EE_PASSPHRASE; cd '{tmp_path}'; {init}")
    status = desk.shell(f"unset E2EE_PASSPHRASE; e2ee status --json --home '{tmp_path}/carol'")

    assert made.code == 0, made.err
    (counts,) = objects(status)
    assert (counts["user"], counts["registered"], counts["outbox"]) == ("carol", True, 0)
    # What is written down says where the secrets are, and holds none.
    assert token not in (tmp_path / "carol" / "settings.json").read_text()
    assert (tmp_path / "carol").stat().st_mode & 0o077 == 0


def test_second_device_is_refused_with_an_explanation(desk: Desk, tmp_path: Path) -> None:
    token = httpx.post(f"{desk.server}/dev/token", json={"user": "alice"}).json()["token"]
    home = str(tmp_path / "alice")

    again = desk.call("init", "alice", "--server", desk.server, "--home", home, "--token-command", f"echo {token}")

    assert again.code == 2
    assert f"alice has a device at {desk.server} already" in again.remark


def test_two_commands_on_one_device_take_turns(desk: Desk) -> None:
    both = [desk.start("send", "bob", f"from {number}", "--home", "alice") for number in range(2)]
    ended = [each.communicate(timeout=PATIENCE_SECONDS) for each in both]

    assert [each.returncode for each in both] == [0, 0], ended
    assert sorted(drained(desk)) == ["from 0", "from 1"]
