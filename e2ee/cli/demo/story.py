"""The demo's story: three people converse while things go wrong.

Owns: what happens in which order, and collecting the evidence.
Does not know about: processes (processes.py), what counts as success (checks.py), layout on the screen (report.py).
"""

import asyncio
import shlex
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from e2ee.cli.demo.broker import Broker
from e2ee.cli.demo.evidence import Evidence, Kill, Said, Shown, bodies, copy_database
from e2ee.cli.demo.processes import Actor, DemoError, Server
from e2ee.cli.demo.tap import Tap, save
from e2ee.cli.demo.xmpp_server import XmppServer
from e2ee.cli.output import Printer

DEFAULT_TRANSPORT: Final = "socketio"
_BROKERS: Final[dict[str, type[Broker] | type[XmppServer]]] = {"mqtt": Broker, "xmpp": XmppServer}
_PEOPLE: Final = ["alice", "bob", "carol"]
_PASSPHRASE: Final = "correct horse battery staple"  # noqa: S105 - opens the demo's own stores, which it deletes
_MISHAPS: Final = frozenset({"Unreadable", "SendFailed", "DeviceSkipped", "Expired", "TrustNeeded", "Ended"})
_EMPTY_SECONDS: Final = 30
_HALF: Final = 10
"""Messages sent to bob before he stands still, and as many while he does."""
_SEEN: Final = 5
"""Of which he has shown so many."""


@final
class Story:
    """One performance, in one directory. A context manager that leaves no process behind."""

    def __init__(self, directory: Path, printer: Printer, transport: str) -> None:
        self._directory, self._printer, self._transport = directory, printer, transport
        self._passphrase_file = directory / "passphrase"
        self._tap = Tap()
        self._taps = [self._tap]
        self._settings: dict[str, str] = {}
        self._broker: Broker | XmppServer | None = None
        if transport in _BROKERS:
            self._taps.append(Tap())
            self._broker = _BROKERS[transport](directory, self._taps[-1])
        self._server = Server(directory, self._tap, self._settings)
        self._actors: dict[str, Actor] = {}
        self._sent: dict[str, list[Said]] = {}
        """By recipient."""
        self._started_at = time.monotonic()

    async def __aenter__(self) -> Self:
        for tap in self._taps:
            await tap.start()
        self._passphrase_file.touch(mode=0o600)
        self._passphrase_file.write_text(_PASSPHRASE + "\n")
        for name in _PEOPLE:
            around = {} if self._broker is None else self._broker.environment(name)
            opening = self._passphrase_file, around
            self._actors[name] = Actor(name, self._transport, self._directory, self._server, *opening)
            self._sent[name] = []
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors.values():
            await actor.kill()
        await self._server.kill()
        if self._broker is not None:
            await self._broker.kill()
        for tap in self._taps:
            await tap.stop()

    async def play(self) -> Evidence:
        """Play all acts; return what there is to be checked."""
        await self._start()
        await self._converse()
        snapshot = await self._while_bob_is_away()
        await self._bob_returns()
        kill = await self._kill_bob_in_the_middle()
        await self._say_goodbye()
        self._tell("searching database, logs, stores and network recordings for every plaintext")
        return self._evidence(snapshot, kill)

    async def stay(self) -> None:
        """Leave the server running, and say how to chat, until cancelled."""
        for tap in self._taps:
            tap.recording = False
        await self._server.start()
        lines = ["", "The server is running. In two other terminals, in this directory:", ""]
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            home = self._actors[name].home
            chat = ["chat", peer, "--home", str(home), "--passphrase-file", str(self._passphrase_file)]
            chat += [] if self._transport == DEFAULT_TRANSPORT else ["--transport", self._transport]
            around = {} if self._broker is None else self._broker.environment(name)
            variables = [f"{variable}={shlex.quote(value)}" for variable, value in around.items()]
            lines.append("  " + " ".join([*variables, shlex.join([*_ourselves(), *chat])]))
        self._printer.result("\n".join([*lines, "", "Ctrl-C here ends it and deletes everything."]))
        await asyncio.Event().wait()

    async def _start(self) -> None:
        if self._broker is not None:
            self._tell(f"starting {self._broker.title}")
            await self._broker.start(_PEOPLE)
            self._settings |= self._broker.settings
        way = "Socket.IO" if self._transport == DEFAULT_TRANSPORT else self._transport
        self._tell(f"starting a server process (key server, mailbox, {way}) with an empty database")
        await self._server.start()
        self._tell("starting three client processes, each with an encrypted store of its own")
        # Waits for all of them, also when one fails or it is interrupted: none may start after everything was ended.
        for outcome in await asyncio.gather(*(each.start() for each in self._actors.values()), return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _converse(self) -> None:
        self._tell("alice, bob and carol converse, both ways")
        self._say("alice", "bob", "Hello Bob, this line is only for the two of us.")
        await self._all_arrived()
        self._say("bob", "alice", "Hello Alice. Then let us keep it that way.")
        self._say("carol", "bob", "Bob, the surprise party starts at seven.")
        self._say("alice", "carol", "Carol, did you order the lemon cake already?")
        await self._all_arrived()
        self._say("bob", "carol", "Seven suits me, I bring the accordion.")
        self._say("carol", "alice", "The lemon cake is ordered, with 42 candles.")
        self._say("bob", "alice", "Which present did we agree on in the end?")
        await self._all_arrived()

    async def _while_bob_is_away(self) -> Path:
        self._tell("bob goes offline; five messages wait for him at the server")
        await self._actors["bob"].stop()
        for number, word in enumerate(("telescope", "hammock", "bicycle"), 1):
            self._say("alice", "bob", f"Present idea number {number}: a {word}, what do you think?")
        for place in ("greenhouse", "boathouse"):
            self._say("carol", "bob", f"We could also meet in the {place} beforehand.")
        await self._accepted("alice")
        await self._accepted("carol")
        snapshot = self._directory / "server-while-bob-is-away.db"
        copy_database(self._server.database, snapshot)
        return snapshot

    async def _bob_returns(self) -> None:
        self._tell("bob returns; his transport holds one envelope back until two later ones have passed")
        await self._actors["bob"].start(hold_from="alice")
        await self._all_arrived()

    async def _kill_bob_in_the_middle(self) -> Kill:
        self._tell("twenty messages for bob; in the middle of them his process is killed (SIGKILL)")
        bob = self._actors["bob"]
        seen = len(bob.messages)
        self._count_guests(1, _HALF)
        await bob.until(lambda: len(bob.messages) >= seen + _SEEN, f"receive {_SEEN} of {2 * _HALF} messages")
        # Where he stands still is left to chance; that the rest is still undelivered is not.
        bob.freeze()
        self._count_guests(_HALF + 1, 2 * _HALF)
        await self._accepted("alice")
        waiting = len(bodies(self._server.database))
        exit_code = await bob.kill()
        kill = Kill(2 * _HALF, len(bob.messages) - seen, waiting, exit_code)
        self._tell("bob starts again from what his store committed")
        await bob.start()
        await self._all_arrived()
        return kill

    async def _say_goodbye(self) -> None:
        self._tell("everybody says goodbye, and all processes end")
        self._say("bob", "alice", "Twenty guests, splendid! See you at seven.")
        self._say("alice", "bob", "See you there, and not a word to anybody.")
        await self._all_arrived()
        await self._all_acknowledged()
        for actor in self._actors.values():
            await actor.stop()
        await self._server.stop()

    def _evidence(self, snapshot: Path, kill: Kill) -> Evidence:
        recordings = [recording for tap in self._taps for recording in tap.recordings]
        places = [snapshot, *sorted(self._directory.glob("server.*")), *save(recordings, self._directory / "network")]
        places += [path for actor in self._actors.values() for path in actor.files]
        places += [] if self._broker is None else self._broker.files
        scratch = self._directory / "scratch"
        scratch.mkdir()
        ideas = [said.text for said in self._sent["bob"] if said.text.startswith("Present idea")]
        return Evidence(
            sent=self._sent,
            shown={
                name: [Shown(each["message_id"], Said(each["sender"], each["text"])) for each in actor.messages]
                for name, actor in self._actors.items()
            },
            mishaps=[
                f"{name}: {event['event']} ({event['code']})"
                for name, actor in self._actors.items()
                for event in actor.events
                if event["event"] in _MISHAPS
            ],
            detained=(ideas[0], ideas[1]),
            kill=kill,
            snapshot=snapshot,
            database=self._server.database,
            recordings=recordings,
            places=places,
            scratch=scratch,
            imported=frozenset(self._server.imported()),
            started_at=self._started_at,
        )

    def _count_guests(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self._say("alice", "bob", f"Guest number {number:02} on the list has confirmed.")

    def _say(self, sender: str, recipient: str, text: str) -> None:
        self._sent[recipient].append(Said(sender, text))
        self._actors[sender].send(recipient, text)

    async def _accepted(self, sender: str) -> None:
        """Wait until the server has taken everything that somebody sent."""
        actor = self._actors[sender]
        sent = sum(1 for messages in self._sent.values() for said in messages if said.sender == sender)
        await actor.until(lambda: actor.count("Sent") >= sent, "hand its messages to the server")

    async def _all_arrived(self) -> None:
        for name, actor in self._actors.items():
            await actor.until(partial(self._arrived, name), f"receive all {len(self._sent[name])} messages sent to it")

    def _arrived(self, name: str) -> bool:
        shown = {Said(message["sender"], message["text"]) for message in self._actors[name].messages}
        return set(self._sent[name]) <= shown

    async def _all_acknowledged(self) -> None:
        """Wait until the mailboxes are empty: an acknowledgement follows its message, and ends with its process."""
        give_up_at = time.monotonic() + _EMPTY_SECONDS
        while bodies(self._server.database):
            if time.monotonic() > give_up_at:
                raise DemoError(f"messages were not acknowledged within {_EMPTY_SECONDS} s")
            await asyncio.sleep(0.05)

    def _tell(self, text: str) -> None:
        self._printer.step(f"{time.monotonic() - self._started_at:5.1f} s  {text}")


def _ourselves() -> list[str]:
    """Return how this command was called, so that it can be called again in another terminal."""
    called = Path(sys.argv[0])
    if called.name == "e2ee" and shutil.which(str(called)):
        return [str(called)]
    return [sys.executable, "-m", "e2ee.cli"]
