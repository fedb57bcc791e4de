"""`e2ee export` and `e2ee recover`: a home is lost, and its account comes back in another."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2ee.cli import recovering
from e2ee.cli.settings import UsageError
from e2ee.messenger import Messenger
from e2ee.recovery import RecoveryCode
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import parse_user_id
from tests.cli_processes import PASSPHRASE, Desk, Ended, serving
from tests.store_files import CHEAP


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        for user in ("alice", "bob"):
            desk.init(user)
        assert desk.call("history", "--keep", "forever", "--home", "alice").code == 0
        assert desk.call("send", "alice", "hello", "--home", "bob").code == 0
        assert desk.call("receive", "--home", "alice").code == 0
        yield desk


def recover(desk: Desk, home: str, *more: str) -> Ended:
    return desk.call("recover", "alice", "--server", desk.server, "--dev", "--home", home, *more)


def history(desk: Desk, home: str) -> list[tuple[str, str, str]]:
    lines = desk.call("history", "bob", "--json", "--home", home).out.splitlines()
    return [(each["author"], each["text"], each["message_id"]) for each in map(json.loads, lines)]


def test_on_an_empty_machine_code_and_export_bring_back_verified_contacts_and_a_readable_history(desk: Desk) -> None:
    assert desk.call("send", "bob", "and to you", "--home", "alice").code == 0
    assert desk.call("receive", "--home", "bob").code == 0
    number = json.loads(desk.call("verify", "alice", "--json", "--home", "bob").out)["safety_number"]
    assert desk.call("verify", "bob", "--number", number, "--home", "alice").code == 0
    before = history(desk, "alice")
    assert [each[:2] for each in before] == [("bob", "hello"), ("alice", "and to you")]
    exported = desk.call("export", "alice.export", "--json", "--home", "alice")
    assert (exported.code, exported.err) == (0, "")
    code = json.loads(exported.out)["code"]
    assert stat.S_IMODE((desk.directory / "alice.export").stat().st_mode) == 0o600
    (desk.directory / "code").write_text(code.lower() + "\n")
    shutil.rmtree(desk.directory / "alice")

    done = recover(desk, "again", "--file", "alice.export", "--code-file", "code", "--json")
    assert (done.code, json.loads(done.out)["contacts"], json.loads(done.out)["messages"]) == (0, 1, 2), done.err
    assert desk.call("contacts", "--home", "again").out == "bob, verified\n"
    assert json.loads(desk.call("verify", "bob", "--json", "--home", "again").out)["safety_number"] == number
    assert history(desk, "again") == before

    assert desk.call("send", "alice", "welcome back", "--home", "bob").code == 0
    received = desk.call("receive", "--json", "--home", "again")
    assert [json.loads(line)["text"] for line in received.out.splitlines()] == ["welcome back"]
    told = desk.call("receive", "--home", "bob")
    assert "has changed" not in told.err

    known = desk.call("import", "alice.export", "--code-file", "code", "--home", "again")
    assert (known.code, known.out) == (0, "0 messages and 0 contacts were new\n")
    assert [each[1] for each in history(desk, "again")] == ["hello", "and to you", "welcome back"]
    again = desk.call("export", "second.export", "--code-file", "code", "--home", "again")
    assert (again.code, again.out) == (0, "second.export opens with the code in code\n")
    assert desk.call("devices", "lost", "--yes", "--home", "again").code == 0
    late = recover(desk, "late", "--file", "second.export", "--code-file", "code")
    assert late.code == 2
    assert late.remark.endswith("since this export was made: it is worth nothing any more")


def test_a_code_is_shown_once_in_groups(desk: Desk) -> None:
    shown = desk.call("export", "shown.export", "--home", "bob")
    assert shown.code == 0
    assert len(shown.out.splitlines()[-1].strip().split("-")) == 8


def test_a_wrong_code_or_file_writes_nothing(desk: Desk) -> None:
    exported = desk.call("export", "bob.export", "--json", "--home", "bob")
    (desk.directory / "right").write_text(json.loads(exported.out)["code"])
    (desk.directory / "wrong").write_text("AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA")
    other = json.loads(desk.call("export", "other.export", "--json", "--home", "bob").out)["code"]
    (desk.directory / "other").write_text(other)
    (desk.directory / "junk").write_bytes(b"junk")
    bob = ("recover", "bob", "--server", desk.server, "--dev", "--home", "unused")
    for arguments, exit_code, remark in (
        ((*bob, "--file", "bob.export", "--code-file", "wrong"), 2, "that is no recovery code"),
        ((*bob, "--file", "bob.export", "--code-file", "other"), 2, "The recovery code does not open the export"),
        ((*bob, "--file", "bob.export"), 2, "there is no terminal to ask at: use --code-file"),
        ((*bob, "--file", "nowhere", "--code-file", "right"), 2, "nowhere cannot be read"),
        ((*bob, "--file", "junk", "--code-file", "right"), 2, "junk is no export, or one of a newer release"),
    ):
        ended = desk.run(*arguments)
        assert (ended.code, ended.out) == (exit_code, ""), ended.err
        assert ended.remark.startswith(remark)
    refused = recover(desk, "unused", "--file", "bob.export", "--code-file", "right")
    assert (refused.code, refused.remark) == (2, "that is an export of bob, not of alice")
    assert not (desk.directory / "unused").exists()


def test_what_was_left_with_the_server_is_enough(desk: Desk) -> None:
    desk.init("carol")
    nothing = desk.call("recover", "carol", "--server", desk.server, "--dev", "--home", "carol2", "--code-file", "x")
    assert (nothing.code, nothing.remark) == (
        2,
        "carol left nothing with the server to recover from: name an export with --file",
    )
    left = desk.call("export", "--on-server", "--json", "--home", "carol")
    assert left.code == 0, left.err
    (desk.directory / "carols").write_text(json.loads(left.out)["code"])
    shutil.rmtree(desk.directory / "carol")
    done = desk.call(
        "recover", "carol", "--server", desk.server, "--dev", "--home", "carol2", "--code-file", "carols", "--json"
    )
    assert (done.code, json.loads(done.out)["contacts"]) == (0, 0), done.err
    assert desk.call("send", "carol", "hello", "--home", "bob").code == 0
    assert "hello" in desk.call("receive", "--home", "carol2").out


def test_what_is_no_export_of_the_account_is_not_taken_in(desk: Desk) -> None:
    exported = json.loads(desk.call("export", "bobs", "--json", "--home", "bob").out)
    (desk.directory / "bobs code").write_text(exported["code"])
    desk.init("erin")
    (desk.directory / "noise").write_bytes(b"noise")
    for file, home, exit_code, remark in (
        ("bobs", "erin", 2, "that is an export of another user, or of before the account got a new key"),
        ("noise", "bob", 2, "noise is no export, or one of a newer release"),
        ("nowhere", "bob", 2, "nowhere cannot be read: No such file or directory"),
    ):
        ended = desk.call("import", file, "--code-file", "bobs code", "--home", home)
        assert (ended.code, ended.out) == (exit_code, "")
        assert ended.remark.startswith(remark)
    nothing_kept = desk.call("import", "bobs", "--code-file", "bobs code", "--home", "bob")
    assert (nothing_kept.code, nothing_kept.out) == (0, "0 messages and 0 contacts were new\n")
    assert "none are kept" in nothing_kept.remark


@pytest.mark.parametrize(
    "arguments", [("export",), ("import",), ("export", "file", "--on-server"), ("recover", "alice")]
)
def test_wrong_arguments_are_explained(desk: Desk, arguments: tuple[str, ...]) -> None:
    ended = desk.call(*arguments, "--home", "bob")
    assert (ended.code, ended.out) == (2, "")
    assert "error: " in ended.err


def test_no_file_is_written_over(desk: Desk) -> None:
    (desk.directory / "kept").write_text("mine")
    ended = desk.call("export", "kept", "--home", "bob")
    assert (ended.code, ended.remark) == (2, "kept exists already: name another file")
    assert (desk.directory / "kept").read_text() == "mine"


def test_a_name_appears_only_when_all_of_the_export_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "exported"

    def pieces() -> Iterator[bytes]:
        yield b"first"
        assert not path.exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="cannot be written: No space left"):
        recovering._write(path, pieces())
    assert list(tmp_path.iterdir()) == []
    recovering._write(path, [b"first", b"second"])
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"firstsecond", 0o600)

    def knows_no_second_names(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", knows_no_second_names)
    recovering._write(tmp_path / "on a stick", [b"whole"])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["exported", "on a stick"]


def test_who_has_lost_the_code_as_well_comes_back_under_a_new_key_that_contacts_must_accept(desk: Desk) -> None:
    desk.init("dave")
    assert desk.call("send", "dave", "hello", "--home", "bob").code == 0
    shutil.rmtree(desk.directory / "dave")
    again = ("reset-account", "dave", "--server", desk.server, "--dev", "--home", "anew")
    refused = desk.call(*again)
    assert (refused.code, refused.remark.endswith("If it is meant, add --yes")) == (2, True)
    nobody = desk.call("reset-account", "nobody", "--server", desk.server, "--dev", "--home", "nobody", "--yes")
    assert (nobody.code, nobody.remark.endswith("'e2ee init' makes one")) == (2, True)

    done = desk.call(*again, "--yes", "--json")
    assert (done.code, json.loads(done.out)["user"]) == (0, "dave")
    stopped = desk.call("send", "dave", "to whom?", "--home", "bob")
    assert stopped.code == 1
    number = json.loads(desk.call("verify", "dave", "--json", "--home", "bob").out)["new_safety_number"]
    assert desk.call("verify", "dave", "--accept-change", number, "--home", "bob").code == 0
    assert desk.call("send", "dave", "to you", "--home", "bob").code == 0
    received = desk.call("receive", "--json", "--home", "anew")
    assert [json.loads(line)["text"] for line in received.out.splitlines()] == ["to you"]


def test_who_was_interrupted_in_the_history_is_told_what_finishes_it(desk: Desk, tmp_path: Path) -> None:
    lost, code = Messenger.create(MemoryStore(), parse_user_id("dora")), RecoveryCode(bytes(20))
    home = tmp_path / "dora"
    home.mkdir()
    with SqliteStore.create(home / "store.db", passphrase=PASSPHRASE, cost=CHEAP) as store:
        Messenger.recover(store, lost.backup.without_history(code), code)
    told = desk.call("recover", "dora", "--server", desk.server, "--dev", "--home", str(home), "--file", "unused")
    assert told.code == 2
    assert "'e2ee init'" in told.err
    assert "'e2ee import'" in told.err
