"""`e2ee chat` between two people at two terminals, and what Ctrl-C and Ctrl-D do."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cli_processes import PASSPHRASE, PATIENCE_SECONDS, Desk, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    with serving(directory) as url:
        desk = Desk(directory, url)
        desk.init("alice")
        desk.init("bob")
        yield desk


def test_two_people_talk_and_no_message_steers_a_terminal(desk: Desk) -> None:
    with ExitStack() as stack:
        alice = stack.enter_context(desk.terminal("chat", "bob", "--home", "alice"))
        bob = stack.enter_context(desk.terminal("chat", "alice", "--home", "bob"))
        for terminal, peer in ((alice, "bob"), (bob, "alice")):
            terminal.wait_for(f"talking with {peer}; end with Ctrl-D")

        alice.type("Hello Bob, grüß dich.\n")
        bob.wait_for(r"\d\d:\d\d alice: Hello Bob, grüß dich\.\r\n")
        bob.type("Hello Alice.\n")
        alice.wait_for(r"\d\d:\d\d bob: Hello Alice\.\r\n")

        alice.end_input()
        assert alice.end() == 0
        # From a script, because a terminal would not let it be typed.
        hostile = b"one\x1b]0;title\x07 \x1b[2J \xe2\x80\xae two\r12:00 bob: three\n12:00 carol: four"
        assert desk.call("send", "bob", "--home", "alice", given=hostile).code == 0
        shown = bob.wait_for(r"(?s)alice: one.*four\r\n")[0]
        bob.interrupt()

        assert bob.end() == 130
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
        assert "\r12:00" not in shown.replace("\r\n", "\n")
        assert "\n    12:00 carol: four" in shown  # indented: not a line of carol's


def test_line_that_cannot_be_sent_is_told_of_and_the_next_one_goes_out(desk: Desk) -> None:
    given = b"\xff\xfe\n" + b"x" * 65537 + b"\nthe last one\n"

    chatted = desk.run("chat", "bob", "--home", "alice", given=given)
    received = desk.call("receive", "--home", "bob")

    assert chatted.code == 2
    assert "e2ee: not sent: the line is not UTF-8 text\n" in chatted.err
    assert "e2ee: not sent: a message holds at most 65536 bytes\n" in chatted.err
    assert received.out.endswith("alice: the last one\n")
    assert received.out.count("\n") == 1


def test_chat_with_nobody_says_so(desk: Desk) -> None:
    chatted = desk.call("chat", "nobody", "--home", "alice", given=b"is anybody there?\n")

    assert chatted.code == 1
    assert "e2ee: not sent: No device of nobody can be reached. " in chatted.err


def test_interrupt_ends_following(desk: Desk) -> None:
    following = desk.start("receive", "--follow", "--home", "bob", "--json")
    desk.call("send", "bob", "followed", "--home", "alice")
    assert following.stdout is not None
    line = following.stdout.readline()
    following.send_signal(signal.SIGINT)
    rest, err = following.communicate(timeout=PATIENCE_SECONDS)

    assert b"followed" in line
    assert (following.returncode, rest, err) == (130, b"", b"")


def test_passphrase_is_asked_for_at_the_terminal_even_if_the_message_comes_through_a_pipe(desk: Desk) -> None:
    script = "unset E2EE_PASSPHRASE; printf hi | {python} -m e2ee.cli send bob --home alice"
    with desk.terminal(script.format(python=sys.executable), command=("bash", "-c")) as terminal:
        terminal.wait_for("Passphrase: ")
        terminal.type(f"{PASSPHRASE}\n")
        terminal.wait_for("sent to bob\r\n")
        assert terminal.end() == 0
    assert PASSPHRASE not in terminal.seen  # not echoed

    with desk.terminal(script.format(python=sys.executable), command=("bash", "-c")) as terminal:
        terminal.wait_for("Passphrase: ")
        terminal.interrupt()
        assert terminal.end() in (130, -signal.SIGINT)
    assert "Traceback" not in terminal.seen
