"""People of the tests with bad networks: a client each, which can be killed and opened again, and what it was shown.

Owns: their lives, what they read and were told.
Does not know about: what happens to the network and to the server.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import MessageId
from tests.chaos_roads import Road
from tests.client_world import QUICK
from tests.server_process import ServerProcess
from tests.store_files import KEY
from transport_adapters import events
from transport_adapters.base import EnvelopeTransport
from transport_adapters.failover import FailoverOptions, FailoverTransport, State
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.secure_client.client import SecureClient, TransportFactory, failover_transport

HURRIED = LinkOptions(
    first_backoff=0.01,
    max_backoff=0.1,
    connect_timeout=2.0,
    hello_timeout=2.0,
    answer_timeout=2.0,
    silence_timeout=2.0,
    credit_messages=16,
)
FICKLE = FailoverOptions(max_failures=2, stable_after=0.2, first_probe=0.1, max_probe=0.4)
MISHAPS = (events.Unreadable, events.SendFailed, events.Expired, events.Ended)


@dataclass
class Person:
    """One user's client, its one or two roads to the server, and what it was told."""

    name: str
    server: ServerProcess
    file: Path
    roads: list[Road]
    client: SecureClient | None = None
    failover: FailoverTransport | None = None
    """Of the client that was opened last."""
    read: list[str] = field(default_factory=list)
    seen: set[MessageId] = field(default_factory=set)
    told: list[events.Event] = field(default_factory=list)
    reading: "asyncio.Task[None] | None" = None
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        store = SqliteStore.open(self.file, key=KEY) if self.file.exists() else SqliteStore.create(self.file, key=KEY)

        async def token() -> str:
            return self.server.token(self.name)

        self.client = await SecureClient.open(
            store=store,
            server=self.server.url,
            token_provider=token,
            transport=self.transport(),
            user=self.name,
            on_event=self.told.append,
            pace=QUICK,
        )
        self.reading = asyncio.create_task(self.take())

    def transport(self) -> TransportFactory:
        primary, *fallback = self.roads
        if not fallback:
            return primary.transport
        make = failover_transport(primary.transport, fallback[0].transport, FICKLE)

        def remembered(server: str, *, token: TokenSource, cursor: CursorSource) -> EnvelopeTransport:
            made = make(server, token=token, cursor=cursor)
            assert isinstance(made, FailoverTransport)
            self.failover = made
            return made

        return remembered

    async def take(self) -> None:
        assert self.client is not None
        async for message in self.client:
            # A client that died before `done` is shown the same one again, under the same id.
            if message.message_id not in self.seen:
                self.seen.add(message.message_id)
                self.read.append(str(message.data))
            await message.done()
            self.progress.set()

    async def until(self, texts: list[str]) -> None:
        """Wait until as much was read as these; whether it is the same, the test asks afterwards."""
        while len(self.read) < len(texts):
            self.progress.clear()
            await self.progress.wait()

    async def until_relying_on(self, state: State) -> None:
        """Wait until the failover is in a state."""
        while self.failover is None or self.failover.state is not state:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)

    async def die(self) -> None:
        """End as a killed program does: without a word to the server, without the last acknowledgements."""
        assert self.client is not None
        assert self.reading is not None
        self.reading.cancel()
        for each in self.roads:
            each.reset()
        await self.client._background.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await self.client.aclose()

    async def close(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
        if self.client is not None:
            await self.client.aclose()

    async def say(self, text: str, recipient: str) -> None:
        """Say it to whichever client there is; one that is being opened again is waited for."""
        while True:
            with contextlib.suppress(RuntimeError):  # the client is closed
                if self.client is not None:
                    await self.client.send(recipient, text)
                    return
            await asyncio.sleep(0.01)
