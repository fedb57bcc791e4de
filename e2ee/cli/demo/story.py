"""The demo's story: three people converse while things go wrong, then the server's database is opened.

Owns: what happens in which order, and the checks that decide the exit code.
Does not know about: processes (processes.py), searching (search.py), layout on the screen (report.py).
"""

import argparse
import asyncio
import shutil
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import final

from e2ee.cli.demo.processes import Actor, DemoError, Server
from e2ee.cli.demo.report import Check, Report, render, render_json
from e2ee.cli.demo.search import search, spellings, tables

_PASSPHRASE = "correct horse battery staple"  # noqa: S105 - opens the demo's own stores, which it deletes
_PRIVATE_MODULES = ("e2ee.private_keys", "e2ee.messenger", "e2ee.session", "e2ee.account", "e2ee.ratchet")
_PRIVATE_PRIMITIVES = ("e2ee.primitives.sign", "e2ee.primitives.dh", "e2ee.primitives.kem", "e2ee.primitives.aead")


def run_demo(arguments: argparse.Namespace) -> int:
    """Play the story; return 0 only if everything held."""
    kept = arguments.keep or arguments.interactive
    directory = Path(arguments.keep) if arguments.keep else Path(tempfile.mkdtemp(prefix="e2ee-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    story = Story(directory, quiet=arguments.json)
    try:
        report = asyncio.run(story.play(stay=arguments.interactive))
    except DemoError as failure:
        print(f"demo: {failure}")
        print(f"demo: everything is left in {directory}")
        return 1
    except KeyboardInterrupt:
        return 130
    if not kept:
        shutil.rmtree(directory)
    return 0 if report.held else 1


@final
class Story:
    """One performance, in one directory."""

    def __init__(self, directory: Path, *, quiet: bool) -> None:
        self._directory, self._quiet = directory, quiet
        self._passphrase_file = directory / "passphrase"
        self._passphrase_file.write_text(_PASSPHRASE + "\n")
        self._server = Server(directory)
        self._actors = {
            name: Actor(name, directory, self._server, self._passphrase_file) for name in ("alice", "bob", "carol")
        }
        self._sent: dict[str, list[tuple[str, str]]] = {name: [] for name in self._actors}
        """By recipient: (sender, text) of everything sent."""
        self._started_at = time.monotonic()

    async def play(self, *, stay: bool) -> Report:
        """Play all acts, inspect what is left, and print the summary."""
        try:
            await self._start()
            await self._converse()
            snapshot = await self._while_bob_is_away()
            late = await self._bob_returns()
            shown_twice = await self._kill_bob_in_the_middle()
            await self._say_goodbye()
            report = self._inspect(snapshot, late, shown_twice)
            print(render_json(report) if self._quiet else render(report))
            if stay:
                await self._stay()
        finally:
            for actor in self._actors.values():
                await actor.kill()
            await self._server.stop()
        return report

    async def _start(self) -> None:
        self._tell("starting a server process (key server, mailbox, Socket.IO) with an empty database")
        await self._server.start()
        self._tell("starting three client processes, each with an encrypted store of its own")
        await asyncio.gather(*(actor.start() for actor in self._actors.values()))

    async def _converse(self) -> None:
        self._tell("alice, bob and carol converse, both ways")
        await self._say("alice", "bob", "Hello Bob, this line is only for the two of us.")
        await self._all_arrived()
        await self._say("bob", "alice", "Hello Alice. Then let us keep it that way.")
        await self._say("carol", "bob", "Bob, the surprise party starts at seven.")
        await self._say("alice", "carol", "Carol, did you order the lemon cake already?")
        await self._all_arrived()
        await self._say("bob", "carol", "Seven suits me, I bring the accordion.")
        await self._say("carol", "alice", "The lemon cake is ordered, with 42 candles.")
        await self._say("bob", "alice", "Which present did we agree on in the end?")
        await self._all_arrived()

    async def _while_bob_is_away(self) -> Path:
        self._tell("bob goes offline; five messages wait for him at the server")
        bob = self._actors["bob"]
        await bob.stop()
        for number, word in enumerate(("telescope", "hammock", "bicycle"), 1):
            await self._say("alice", "bob", f"Present idea number {number}: a {word}, what do you think?")
        for place in ("greenhouse", "boathouse"):
            await self._say("carol", "bob", f"We could also meet in the {place} beforehand.")
        await self._flush("alice", 3)
        await self._flush("carol", 2)
        # A copy through SQLite, so that what lies in the write-ahead log is in it.
        snapshot = self._directory / "server-while-bob-is-away.db"
        with closing(sqlite3.connect(self._server.database)) as live, closing(sqlite3.connect(snapshot)) as copy:
            live.backup(copy)
        return snapshot

    async def _bob_returns(self) -> int:
        self._tell("bob returns; his transport holds one envelope back, so that later ones overtake it")
        await self._actors["bob"].start(hold_delivery=2)
        await self._all_arrived()
        return sum(1 for event in self._actors["bob"].events if event["event"] == "late")

    async def _kill_bob_in_the_middle(self) -> int:
        self._tell("alice sends twenty messages; bob's process is killed (SIGKILL) in the middle of them")
        bob = self._actors["bob"]
        seen = len(bob.messages)
        for number in range(1, 21):
            await self._say("alice", "bob", f"Guest number {number:02} on the list has confirmed.")
        await bob.until(lambda: len(bob.messages) >= seen + 5, "receive five of twenty messages")
        await bob.kill()
        self._tell("bob starts again from what his store committed")
        await bob.start()
        await self._all_arrived()
        ids = [message["message_id"] for message in bob.messages]
        return len(ids) - len(set(ids))

    async def _say_goodbye(self) -> None:
        self._tell("everybody says goodbye, and all processes end")
        await self._say("bob", "alice", "Twenty guests, splendid! See you at seven.")
        await self._say("alice", "bob", "See you there, and not a word to anybody.")
        await self._all_arrived()
        for actor in self._actors.values():
            await actor.stop()
        await self._server.stop()

    def _inspect(self, snapshot: Path, late: int, shown_twice: int) -> Report:
        self._tell("searching database, logs, stores and captured frames for every plaintext")
        plaintexts = sorted({text for sent in self._sent.values() for _, text in sent})
        database = self._server.database
        places = [snapshot, *sorted(self._directory.glob("server.db*")), self._server.log]
        places += [path for actor in self._actors.values() for path in actor.files]
        places = [path for path in places if path.suffix != ".lock"]
        findings = search(places, plaintexts)
        imported = self._server.imported()
        private = sorted(name for name in imported if name.startswith((*_PRIVATE_MODULES, *_PRIVATE_PRIMITIVES)))
        checks = [
            Check(
                "every message arrived, as it was sent",
                all(map(self._arrived, self._actors)),
                f"{self._total()} messages",
            ),
            Check(
                "no message reached a store twice", self._repeated() == 0, f"{shown_twice} shown again after the kill"
            ),
            Check("one envelope came late and was read", late == 1, "its key was kept while others overtook it"),
            Check("the search finds a planted canary", self._finds_canary(snapshot), "in every spelling, file and row"),
            Check(
                "no plaintext in database, logs, stores, frames",
                not findings,
                f"{len(places)} files, {len(plaintexts)} texts" + "".join(f"; {each}" for each in findings[:3]),
            ),
            Check(
                "the server never loaded private-key code",
                bool(imported) and not private,
                f"{len(imported)} modules imported" + "".join(f"; {name}" for name in private[:3]),
            ),
            Check("bob's mailbox is empty again", _rows(database, "e2ee_envelopes") == 0, "acknowledged after commit"),
        ]
        elapsed = time.monotonic() - self._started_at
        return Report(checks, _sizes(snapshot), _bodies(snapshot), elapsed)

    async def _stay(self) -> None:
        """Leave the server running and say how to chat."""
        await self._server.start()
        print("\nThe server is running. In two other terminals:\n")
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            home = self._actors[name].home
            print(f"  .venv/bin/e2ee chat {peer} --home {home} --passphrase-file {self._passphrase_file}")
        print("\nCtrl-C here ends it.", flush=True)
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
        await stopped.wait()

    async def _say(self, sender: str, recipient: str, text: str) -> None:
        self._sent[recipient].append((sender, text))
        await self._actors[sender].send(recipient, text)

    async def _flush(self, sender: str, count: int) -> None:
        """Wait until the server has taken the sender's last messages."""
        actor = self._actors[sender]
        sent = sum(1 for messages in self._sent.values() for who, _ in messages if who == sender)
        await actor.until(
            lambda: sum(1 for event in actor.events if event["event"] == "Sent") >= sent, f"deliver {count} messages"
        )

    async def _all_arrived(self) -> None:
        for name, actor in self._actors.items():
            await actor.until(partial(self._arrived, name), f"receive all {len(self._sent[name])} messages sent to it")

    def _arrived(self, name: str) -> bool:
        shown = {(message["sender"], message["text"]) for message in self._actors[name].messages}
        return set(self._sent[name]) <= shown

    def _total(self) -> int:
        return sum(map(len, self._sent.values()))

    def _repeated(self) -> int:
        """Count texts that came under two message ids: a repetition under one id is the application's to ignore."""
        by_id = {
            (name, message["message_id"]): (message["sender"], message["text"])
            for name, actor in self._actors.items()
            for message in actor.messages
        }
        return len(by_id) - self._total()

    def _finds_canary(self, snapshot: Path) -> bool:
        """Plant a text in every spelling, in a file and in a copy of the database, and see that all are found."""
        canary = "This canary must be found, or the search is blind."
        planted_file, planted_database = self._directory / "canary.bin", self._directory / "canary.db"
        wanted = dict(spellings(canary))
        planted_file.write_bytes(b"\0".join(wanted.values()))
        shutil.copy(snapshot, planted_database)
        with closing(sqlite3.connect(planted_database)) as database, database:
            database.execute("CREATE TABLE canary (value BLOB)")
            # Longer than a page, so that the value is cut on disk.
            database.executemany("INSERT INTO canary VALUES (?)", [(bytes(4090) + each,) for each in wanted.values()])
        in_file = {finding.spelling for finding in search([planted_file], [canary])}
        in_rows = {finding.spelling for finding in search([planted_database], [canary]) if ":" in finding.place}
        planted_file.unlink()
        planted_database.unlink()
        return in_file == in_rows == set(wanted)

    def _tell(self, text: str) -> None:
        if not self._quiet:
            print(f"{time.monotonic() - self._started_at:5.1f} s  {text}", flush=True)


def _rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        count: int = database.execute(f'SELECT count(*) FROM "{table}" WHERE body IS NOT NULL').fetchone()[0]  # noqa: S608
        return count


def _sizes(path: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as database:
        counts = [
            (name, database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608
            for name in tables(database)
        ]
    return [(name, count) for name, count in counts if count]


def _bodies(path: Path) -> list[bytes]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT body FROM e2ee_envelopes WHERE body IS NOT NULL ORDER BY seq").fetchall()
    return [row[0] for row in rows]
