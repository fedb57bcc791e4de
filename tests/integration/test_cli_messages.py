"""`e2ee init`, `send`, `receive` and `status`, as scripts use them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2ee.limits import MAX_APPLICATION_DATA
from tests.cli_processes import PASSPHRASE, PATIENCE_SECONDS, Desk, Ended, serving


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
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def drained(desk: Desk) -> list[str]:
    return [each["text"] for each in objects(desk.run("receive", "--home", "bob", "--json"))]


def test_printf_into_send_arrives(desk: Desk) -> None:
    sent = desk.shell("printf hi | e2ee send bob --home alice")
    received = desk.run("receive", "--home", "bob")

    assert (sent.code, sent.out, sent.err) == (0, "sent to bob\n", "")
    assert received.code == 0
    assert received.out.endswith(" alice: hi\n")
    assert received.out.count("\n") == 1


def test_home_and_passphrase_of_the_environment_need_no_options(desk: Desk) -> None:
    sent = desk.run("send", "bob", given=b"from the environment", env={"E2EE_HOME": "alice"})

    assert sent.code == 0
    assert drained(desk) == ["from the environment"]


def test_text_may_come_after_options(desk: Desk) -> None:
    assert desk.run("send", "bob", "--home", "alice", "at the end").code == 0
    assert drained(desk) == ["at the end"]


def test_json_of_send_and_receive_names_the_same_message(desk: Desk) -> None:
    (sent,) = objects(desk.run("send", "bob", "tëxt\n", "--conversation", "lunch", "--home", "alice", "--json"))
    (received,) = objects(desk.run("receive", "--home", "bob", "--json"))

    assert sent["state"] == "sent"
    assert sent["message_id"] == received["message_id"]
    assert (received["sender"], received["conversation"], received["text"]) == ("alice", "lunch", "tëxt\n")
    assert isinstance(received["sent_at"], int)


def test_bytes_that_are_no_text_arrive_with_binary(desk: Desk) -> None:
    data = bytes(range(256))

    sent = desk.run("send", "bob", "--binary", "--home", "alice", given=data)
    (received,) = objects(desk.run("receive", "--home", "bob", "--json"))

    assert sent.code == 0
    assert "text" not in received
    assert received["base64"].startswith("AAECAwQF")


def test_largest_message_arrives_and_one_byte_more_is_refused(desk: Desk) -> None:
    assert desk.run("send", "bob", "--home", "alice", given=b"x" * MAX_APPLICATION_DATA).code == 0
    too_long = desk.run("send", "bob", "--home", "alice", given=b"x" * (MAX_APPLICATION_DATA + 1))

    assert too_long.code == 2
    assert "at most 65536 bytes" in too_long.remark
    assert list(map(len, drained(desk))) == [MAX_APPLICATION_DATA]


def test_received_messages_are_not_shown_again(desk: Desk) -> None:
    desk.run("send", "bob", "once", "--home", "alice")

    assert drained(desk) == ["once"]
    assert drained(desk) == []


def test_reader_that_goes_away_loses_no_message(desk: Desk) -> None:
    for number in range(3):
        desk.run("send", "bob", f"line {number}", "--home", "alice")

    piped = desk.shell("e2ee receive --home bob --json | { read -r line; echo \"$line\"; }; exit ${PIPESTATUS[0]}")

    assert json.loads(piped.out)["text"] == "line 0"
    assert piped.code in (0, 141)  # it may have written everything before the reader went
    assert piped.err == ""
    rest = drained(desk)
    assert rest in ([], ["line 1", "line 2"], ["line 2"])


def test_reader_that_was_never_there_loses_no_message(desk: Desk) -> None:
    desk.run("send", "bob", "kept", "--home", "alice")

    piped = desk.shell("exec 3> >(exit); wait $!; e2ee receive --home bob >&3; exit $?")

    assert (piped.code, piped.err) == (141, "")
    assert drained(desk) == ["kept"]


@pytest.mark.parametrize("output", ["/dev/full", "&-"])
def test_output_that_cannot_be_written_loses_no_message(desk: Desk, output: str) -> None:
    desk.run("send", "bob", "kept", "--home", "alice")

    failed = desk.shell(f"e2ee receive --home bob >{output}")

    assert failed.code == 2
    assert "standard output" in failed.remark
    assert drained(desk) == ["kept"]


def test_count_waits_for_messages_that_come_later(desk: Desk) -> None:
    waiting = desk.start("receive", "--home", "bob", "--count", "2", "--json")
    desk.run("send", "bob", "first", "--home", "alice")
    desk.run("send", "bob", "second", "--home", "alice")
    out, err = waiting.communicate(timeout=PATIENCE_SECONDS)

    assert (waiting.returncode, err) == (0, b"")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["first", "second"]


def test_count_with_timeout_gives_up(desk: Desk) -> None:
    ended = desk.run("receive", "--home", "bob", "--count", "1", "--timeout", "1.5")

    assert (ended.code, ended.out) == (3, "")
    assert "did not deliver a message in time" in ended.remark


def test_passphrase_file_is_remembered_by_init(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\na second line does not matter\n")
    script = "unset E2EE_PASSPHRASE; cd '{}'; e2ee init carol --server {} --dev --home carol --passphrase-file passphrase"

    made = desk.shell(script.format(tmp_path, desk.server))
    status = desk.shell(f"unset E2EE_PASSPHRASE; e2ee status --json --home '{tmp_path}/carol'")

    assert made.code == 0, made.err
    (counts,) = objects(status)
    assert (counts["user"], counts["registered"], counts["outbox"]) == ("carol", True, 0)


def test_tokens_come_from_a_command_or_a_file(desk: Desk, tmp_path: Path) -> None:
    token = subprocess.run(
        ["curl", "-fsS", "-d", '{"user": "dave"}', "-H", "Content-Type: application/json", f"{desk.server}/dev/token"],
        capture_output=True,
        check=True,
    ).stdout
    jwt = json.loads(token)["token"]
    (tmp_path / "token").write_text(f"{jwt}\n")
    home = str(tmp_path / "dave")

    by_command = desk.run("init", "dave", "--server", desk.server, "--home", home, "--token-command", f"echo {jwt}")
    by_file = desk.shell(
        f"e2ee init dave --server {desk.server} --home '{home}-2' --token-file '{tmp_path}/token'"
    )

    assert by_command.code == 0, by_command.err
    # The token was taken; that there is a second device is another matter.
    assert by_file.code == 2
    assert "dave has a device" in by_file.remark


def test_status_works_offline_and_for_people(desk: Desk) -> None:
    shown = desk.run("status", "--home", "alice")

    assert shown.code == 0
    assert shown.out.startswith(f"alice on {desk.server}, device ")
    assert "  outbox        0\n" in shown.out


def test_two_commands_on_one_device_take_turns(desk: Desk) -> None:
    both = [desk.start("send", "bob", f"from {number}", "--home", "alice") for number in range(2)]
    ended = [each.communicate(timeout=PATIENCE_SECONDS) for each in both]

    assert [each.returncode for each in both] == [0, 0], ended
    assert sorted(drained(desk)) == ["from 0", "from 1"]
