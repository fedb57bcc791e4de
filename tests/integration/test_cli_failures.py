"""Whatever goes wrong, the command line says in one line what happened and what to do, and never shows a traceback.

`Desk.run` asserts the absence of a traceback, `Ended.remark` the one line.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from e2ee.cli import commands
from tests.cli_processes import PATIENCE_SECONDS, Desk, free_port, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        desk.init("alice")
        yield desk


# --- wrong use -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "bad name", "hi"),
        ("send", "bäd", "hi"),
        ("send", "", "hi"),
        ("send", "u" * 129, "hi"),
        ("send", "bob", "hi", "--conversation", "two words"),
        ("send", "bob", "hi", "--ttl", "0"),
        ("send", "bob", "hi", "--ttl", "2419201"),
        ("send", "bob", "hi", "--timeout", "nan"),
        ("send", "bob", "hi", "there"),
        ("receive", "--count", "0"),
        ("receive", "--count", "1", "--follow"),
        ("init", "alice", "--server", "https://chat.example"),
        ("init", "bad name", "--server", "https://chat.example", "--dev"),
        ("no-such-command",),
        (),
    ],
)
def test_wrong_arguments_are_explained(desk: Desk, arguments: tuple[str, ...]) -> None:
    ended = desk.call(*arguments, env={"E2EE_HOME": "unused"})

    assert (ended.code, ended.out) == (2, "")
    assert "error: " in ended.err
    assert not (desk.directory / "unused").exists()


@pytest.mark.parametrize(
    ("variables", "remark"),
    [
        ({}, "--transport xmpp: E2EE_XMPP_ACCOUNT is not set"),
        (
            {
                "E2EE_XMPP_ACCOUNT": "alice@chat.example",
                "E2EE_XMPP_PASSWORD": "a password",
                "E2EE_XMPP_RELAY": "relay.chat.example",
                "E2EE_XMPP_ADDRESS": "chat.example",
            },
            "--transport xmpp: E2EE_XMPP_ADDRESS is not host:port",
        ),
    ],
)
def test_xmpp_without_its_account(desk: Desk, variables: dict[str, str], remark: str) -> None:
    ended = desk.call("receive", "--home", "alice", "--transport", "xmpp", env=variables)

    assert (ended.code, ended.out, ended.remark) == (2, "", remark)


def test_no_device_yet(desk: Desk) -> None:
    ended = desk.call("send", "bob", "hi", "--home", "nowhere")

    assert (ended.code, ended.out) == (2, "")
    assert ended.remark == "no device in nowhere: make one with 'e2ee init' (or name another --home)"


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        (b"\xff\xfe", "standard input is not UTF-8 text: use --binary"),
        (b"", "the message is empty: nothing was sent"),
        (b"x" * 65537, "a message holds at most 65536 bytes: nothing was sent"),
    ],
)
def test_input_that_is_no_message(desk: Desk, given: bytes, remark: str) -> None:
    ended = desk.call("send", "bob", "--home", "alice", given=given)

    assert (ended.code, ended.remark) == (2, remark)


def test_closed_standard_streams(desk: Desk) -> None:
    no_input = desk.shell("e2ee send bob --home alice <&-")
    no_input_chat = desk.shell("e2ee chat bob --home alice <&-")
    no_errors = desk.shell("e2ee send nobody hi --home alice 2>&-")

    assert (no_input.code, no_input.remark) == (2, "standard input is closed")
    assert (no_input_chat.code, no_input_chat.remark) == (2, "standard input is closed")
    assert (no_errors.code, no_errors.out) == (1, "")  # the remark is not printed among the results instead


def test_argument_that_is_not_utf8(desk: Desk) -> None:
    # Python's spelling of the byte 0xFF in an argument.
    ended = desk.call("send", "bob", "\udcff", "--home", "alice")

    assert (ended.code, ended.remark) == (2, "the message is not UTF-8 text")


# --- passphrase and store ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "is empty"),
        ("wrong\n", "The passphrase does not open the store. Try again with the right one; nothing was changed"),
        (b"\xff\n", "is not UTF-8 text"),
    ],
)
def test_passphrase_file_that_is_no_good(desk: Desk, content: str | bytes | None, remark: str, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    ended = desk.call("status", "--home", "alice", "--passphrase-file", str(file))

    assert ended.code == 2
    assert ended.remark.endswith(remark)


def test_no_passphrase_and_nobody_to_ask(desk: Desk) -> None:
    ended = desk.shell("unset E2EE_PASSPHRASE; e2ee status --home alice")

    assert (ended.code, ended.remark) == (2, "no passphrase: set E2EE_PASSPHRASE, or use --passphrase-file")


def test_store_that_another_process_uses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LOCK_SECONDS", 0.2)
    other = desk.start("receive", "--follow", "--home", "alice", "-v")
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        _until(lambda: desk.directory.joinpath("alice", "store.db-wal").exists())
        ended = desk.call("status", "--home", "alice")
    finally:
        other.send_signal(signal.SIGINT)
        _, err = other.communicate(timeout=PATIENCE_SECONDS)

    assert ended.code == 2
    assert ended.remark == "The store is in use by another process. Close the other program, or wait for it"
    assert other.returncode == 130, err


@pytest.mark.parametrize("damage", ["store", "header", "settings"])
def test_damaged_files(desk: Desk, damage: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for file in ("settings.json", "store.db"):
        (home / file).write_bytes((desk.directory / "alice" / file).read_bytes())
    if damage == "settings":
        (home / "settings.json").write_text('{"user": 5}')
    else:
        store = bytearray((home / "store.db").read_bytes())
        store[: len(store) if damage == "store" else 16] = os.urandom(len(store) if damage == "store" else 16)
        (home / "store.db").write_bytes(store)

    ended = desk.call("status", "--home", str(home))

    assert ended.code == 2
    assert "damaged" in ended.remark or "corrupt" in ended.remark
    assert "init" in ended.remark or "Restore" in ended.remark


def test_directory_that_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")

    made = desk.call("init", "eve", "--server", desk.server, "--dev", "--home", str(tmp_path / "file" / "home"))
    used = desk.call("status", "--home", str(tmp_path / "file"))

    assert (made.code, used.code) == (2, 2)
    assert "cannot be written" in made.remark
    assert "no device in" in used.remark


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(desk: Desk, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for file in ("settings.json", "store.db"):
        (home / file).write_bytes((desk.directory / "alice" / file).read_bytes())
    home.chmod(0o500)
    try:
        ended = desk.call("status", "--home", str(home))
    finally:
        home.chmod(0o700)

    assert ended.code == 2
    assert "store.db" in ended.remark


def test_full_disk(desk: Desk, tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk: the system refuses to write in both cases.
    home = str(tmp_path / "home")

    ended = desk.shell(f"ulimit -f 64; e2ee init frank --server {desk.server} --dev --home '{home}'")

    assert ended.code == 2
    assert "The store cannot be used" in ended.remark
    assert "Free space" in ended.remark


# --- server --------------------------------------------------------------------------------------------------


def test_a_note_to_oneself_needs_another_device(desk: Desk) -> None:
    ended = desk.call("send", "alice", "note", "--home", "alice")

    assert (ended.code, ended.out) == (2, "")
    assert ended.remark == "alice is this account itself, and it has no other device to send to"


def test_unknown_recipient(desk: Desk) -> None:
    ended = desk.call("send", "nobody", "hi", "--home", "alice")

    assert (ended.code, ended.out) == (1, "")
    assert "No device of nobody can be reached. Check the name" in ended.remark


def test_a_failure_has_a_code_for_programs(desk: Desk) -> None:
    refused = desk.call("send", "nobody", "hi", "--json", "--home", "alice")
    wrong = desk.call("send", "bob", "hi", "--json", "--home", "nowhere")

    for ended, exit_code, error in ((refused, 1, "user_unreachable"), (wrong, 2, "wrong_use")):
        told = json.loads(ended.err.splitlines()[-1])
        assert (ended.code, ended.out, told["error"]) == (exit_code, "", error)
        assert told["text"]


@pytest.mark.parametrize(
    ("server", "code", "remark"),
    [
        ("http://chat.example", 2, "Refusing a http:// URL that is not loopback. Use https://"),
        ("chat.example", 2, "'chat.example' is no address of a server: a URL begins with https://"),
        ("https://", 2, "is no address of a server"),
        (
            "http://127.0.0.1:{port}",
            3,
            "The key server does not answer: ConnectError, nothing listens at its address. Try again",
        ),
        ("https://127.0.0.1:{plain}", 3, "ConnectError, it speaks no TLS that we do"),
    ],
)
def test_init_at_a_wrong_address_writes_nothing(
    desk: Desk, server: str, code: int, remark: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    address = server.format(port=free_port(), plain=desk.server.rpartition(":")[2])

    ended = desk.call("init", "gina", "--server", address, "--dev", "--home", str(home))

    assert ended.code == code, ended
    assert remark in ended.remark
    assert not home.exists()


def test_init_at_a_server_without_development_login(desk: Desk, tmp_path: Path) -> None:
    home = tmp_path / "home"

    ended = desk.call("init", "gina", "--server", f"{desk.server}/chat", "--dev", "--home", str(home))

    assert ended.code in (2, 3)
    assert "keyserver serve --dev" in ended.remark or "Check the server's address" in ended.remark
    assert not home.exists()


def test_init_where_something_else_answers_and_steers_no_terminal(desk: Desk, tmp_path: Path) -> None:
    body = b'{"code": "\\u001b]0;owned\\u0007 a\\nb", "detail": "\\u001b[2J"}'
    answer = b"HTTP/1.1 403 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    with answering(answer) as address:
        ended = desk.call("init", "gina", "--server", address, "--dev", "--home", str(tmp_path / "home"))

    assert ended.code == 1
    assert "The key server refused the request" in ended.remark
    assert "\x1b" not in ended.err
    assert "\x07" not in ended.err


@pytest.mark.parametrize(
    ("option", "value", "remark"),
    [
        ("--token-file", "missing", "cannot be read: No such file or directory"),
        ("--token-file", "alice/store.db", "is too long to be the right file"),
        ("--token-command", "echo two words", "is not a token: one word of ASCII characters is expected"),
        ("--token-command", "exit 3", "the token command ended with exit code 3"),
    ],
)
def test_token_source_that_gives_none(desk: Desk, option: str, value: str, remark: str, tmp_path: Path) -> None:
    home = tmp_path / "home"

    ended = desk.call("init", "gina", "--server", desk.server, option, value, "--home", str(home))

    assert ended.code == 2
    assert ended.remark.endswith(remark)
    assert not home.exists()


def test_registration_that_failed_is_taken_up_again(desk: Desk, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    bad = desk.call("init", "hans", "--server", desk.server, "--token-command", "echo garbage", "--home", home)
    other = desk.call("init", "ina", "--server", desk.server, "--dev", "--home", home)
    again = desk.call("init", "hans", "--server", desk.server, "--dev", "--home", home)
    once_more = desk.call("init", "hans", "--server", desk.server, "--dev", "--home", home)

    assert (bad.code, other.code, again.code, once_more.code) == (1, 2, 0, 2)
    assert "token_invalid" in bad.remark
    assert "unfinished device of hans" in other.remark
    assert "there is a device in" in once_more.remark


def test_server_that_is_down_leaves_the_message_queued(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        desk = Desk(tmp_path, url)
        desk.init("alice")
        desk.init("bob")
        assert desk.call("send", "bob", "first contact", "--home", "alice").code == 0

    sent = desk.call("send", "bob", "queued", "--timeout", "4", "--home", "alice", "--json")
    status = desk.call("status", "--home", "alice", "--json")
    unknown = desk.call("send", "carol", "hi", "--timeout", "1", "--home", "alice")
    received = desk.call("receive", "--timeout", "1", "--home", "bob")

    assert sent.code == 3
    assert '"state": "queued"' in sent.out
    assert "did not take the message in time: The key server does not answer: ConnectError" in sent.remark
    assert '"outbox": 1' in status.out
    assert (unknown.code, unknown.out) == (3, "")
    assert "carol in time" in unknown.remark or "The key server does not answer" in unknown.remark
    assert (received.code, received.out) == (3, "")
    assert "did not deliver what waits in time" in received.remark


# The development server, but while a file exists, nobody may contact anybody.
_MOODY_SERVER = """
import sys
from pathlib import Path

from keyserver.__main__ import main
from keyserver.service.policy import ContactPolicy


async def may_contact(self, sender, recipient):
    return not Path("closed").exists()


ContactPolicy.may_contact = may_contact
sys.exit(main())
"""


def test_message_that_the_server_refuses_for_good_is_not_reported_as_sent(tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(_MOODY_SERVER)
    with serving(tmp_path, (sys.executable, "moody.py", "serve", "--dev")) as url:
        desk = Desk(tmp_path, url)
        desk.init("alice")
        desk.init("bob")
        assert desk.call("send", "bob", "while they are friends", "--home", "alice").code == 0
        (tmp_path / "closed").touch()

        refused = desk.call("send", "bob", "after the quarrel", "--home", "alice", "--json")
        status = desk.call("status", "--home", "alice", "--json")

    assert refused.code == 1
    assert json.loads(refused.out)["state"] == "refused"
    assert refused.remark == "a message to bob will not arrive: contact_refused"
    assert json.loads(status.out)["outbox"] == 0


def test_login_that_is_refused_ends_the_waiting_at_once(desk: Desk, tmp_path: Path) -> None:
    home, token = tmp_path / "ida", tmp_path / "token"
    token.write_text(httpx.post(f"{desk.server}/dev/token", json={"user": "ida"}).json()["token"])
    made = desk.call("init", "ida", "--server", desk.server, "--token-file", str(token), "--home", str(home))
    assert made.code == 0, made
    token.write_text("garbage")
    refused = desk.call("receive", "--timeout", "50", "--home", str(home))
    token.unlink()
    missing = desk.call("receive", "--timeout", "50", "--home", str(home))

    assert (refused.code, missing.code) == (1, 2)
    assert "token_invalid" in refused.remark
    assert "cannot be read" in missing.remark


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer every request on a free port with the same bytes; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_SECONDS)


def _until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
