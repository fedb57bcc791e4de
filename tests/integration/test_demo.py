"""`e2ee demo` from the first line to the last: it holds, it fails when it must, and it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2ee.cli.demo.search import search
from tests.cli_processes import E2EE, PATIENCE_SECONDS, Desk, environment

# The clients' message cipher is the identity: whatever is said passes the server as it is.
_NO_ENCRYPTION = """
import sys
from types import SimpleNamespace

if "e2ee.cli.demo.actor" in sys.orig_argv:
    from e2ee.ratchet import triple_ratchet

    triple_ratchet.aead = SimpleNamespace(
        seal=lambda key, nonce, plaintext, ad: plaintext + bytes(16),
        unseal=lambda key, nonce, sealed, ad: sealed[:-16],
    )
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "tmp").mkdir()
    return Desk(tmp_path)


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of processes that were started with a path below a directory (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                found.append(command)
    return found


def left_in(desk: Desk) -> list[str]:
    return [each.name for each in (desk.directory / "tmp").glob("e2ee-demo-*")]


def test_demo_holds_and_the_chat_that_it_offers_works(desk: Desk) -> None:
    env = {"TMPDIR": str(desk.directory / "tmp")}
    with desk.terminal("demo", "--interactive", env=env) as demo:
        demo.wait_for("Ctrl-C here ends it and deletes everything")
        lines = demo.seen.replace("\r\n", "\n").split("\n")
        story, rest = lines[: lines.index("")], lines[lines.index("") :]
        summary = rest[: next(at for at, line in enumerate(rest) if line.startswith("The server is running."))]
        commands = [line.strip() for line in rest if " chat " in line]

        # The two commands, exactly as they were printed.
        with (
            desk.terminal("-c", commands[0], command=("bash",)) as alice,
            desk.terminal("-c", commands[1], command=("bash",)) as bob,
        ):
            alice.wait_for("talking with bob")
            bob.wait_for("talking with alice")
            alice.type("Are you there?\n")
            bob.wait_for(r"alice: Are you there\?\r\n")
            bob.type("I am.\n")
            alice.wait_for(r"bob: I am\.\r\n")
            for terminal in (alice, bob):
                terminal.interrupt()
                assert terminal.end() == 130
        demo.interrupt()
        assert demo.end() == 0

    assert all(re.match(r" {0,3}\d+\.\d s  \w", line) for line in story)
    assert len(story) >= 8
    assert 24 <= len(summary) <= 32
    assert max(map(len, story + summary)) <= 100
    assert sum(line.startswith("  ok    ") for line in summary) == 10
    assert not any("FAIL" in line for line in summary)
    assert any(line.startswith("All of it held.") for line in summary)
    assert left_in(desk) == []
    assert processes_of(desk.directory) == []


@pytest.mark.parametrize("transport", ["mqtt", "xmpp"])
def test_demo_holds_over_a_broker_of_its_own(desk: Desk, transport: str) -> None:
    ended = desk.run("demo", "--json", "--transport", transport, env={"TMPDIR": str(desk.directory / "tmp")})

    report = json.loads(ended.out)
    assert [check["what"] for check in report["checks"] if not check["held"]] == []
    assert (ended.code, ended.err) == (0, "")
    assert left_in(desk) == []
    assert processes_of(desk.directory) == []


def test_demo_without_encryption_fails_and_says_where_the_plaintext_is(desk: Desk) -> None:
    (desk.directory / "sitecustomize.py").write_text(_NO_ENCRYPTION)
    kept = desk.directory / "kept"
    path = f"{desk.directory}:{Path(__file__).parents[2]}"

    ended = desk.run("demo", "--json", "--keep", str(kept), env={"PYTHONPATH": path})

    report = json.loads(ended.out)
    failed = {check["what"]: check["detail"] for check in report["checks"] if not check["held"]}
    assert ended.code == 1
    assert report["held"] is False
    assert list(failed) == ["no plaintext in database, logs, stores, network"]
    assert failed.popitem()[1].startswith("found in ")
    # Seen on the network in both directions, under the clients' mask, and in the mailbox.
    frames = sorted((kept / "network").glob("*.frames"))
    said = "Present idea number 2: a hammock, what do you think?"
    places = {finding.place.rpartition("-to-")[2] for finding in search(frames, [said])}
    assert places == {"server.frames", "client.frames"}
    assert search([kept / "server-while-bob-is-away.db"], [said])
    assert ended.remark == f"everything is left in {kept}"
    assert (kept / "server.db").exists()
    assert processes_of(desk.directory) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_nothing_behind(desk: Desk, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*E2EE, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(desk.directory, TMPDIR=str(desk.directory / "tmp")),
        start_new_session=True,
    )
    assert process.stdout is not None
    while "three client processes" not in process.stdout.readline():
        assert process.poll() is None
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while len(processes_of(desk.directory)) < 2:  # the server, and a client
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, err) == (130, "")
    assert left_in(desk) == []
    assert processes_of(desk.directory) == []


def test_demo_does_not_write_into_a_directory_with_something_in_it(desk: Desk) -> None:
    ended = desk.call("demo", "--keep", str(desk.directory))

    assert (ended.code, ended.out) == (2, "")
    assert "is not empty: name a new directory" in ended.remark


def test_make_demo_is_this_command() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    assert re.search(r"^demo: .*\n\t@\$\(BIN\)/e2ee demo \$\(if \$\(INTERACTIVE\),--interactive\) ", makefile, re.M)
    assert "$(if $(TRANSPORT),--transport $(TRANSPORT))" in makefile
    assert Path(sys.executable).with_name("e2ee").exists() or "PYTHONPATH" in os.environ
