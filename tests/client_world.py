"""A whole server in this process, and SecureClients that talk to it over loopback or over the memory transport.

Owns: the server's life, its faults at the HTTP interface, clients that remember what they were told.
Does not know about: what a test asserts.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp, Message as AsgiMessage, Receive, Scope, Send

from e2ee.errors import StoreUnavailableError
from e2ee.limits import DEVICE_LIST_LIFETIME_MS
from e2ee.ports import ReadTransaction, Store, Table, Transaction
from e2ee.stores import records
from e2ee.stores.memory import MemoryStore
from e2ee.wire.device_list import DeviceList, ListedDevice, SignedDeviceList, ordered
from keyserver.app import Services, StandaloneApp, create_app, system_clock
from keyserver.auth import Clock
from keyserver.service.policy import ContactRule, nobody
from tests.keyserver_world import host_token, settings
from transport_adapters import events
from transport_adapters.base import (
    Connected,
    Cursor,
    Delivery,
    EnvelopeTransport,
    Incoming,
    Outgoing,
    SendResult,
    SeqRange,
    Signal,
)
from transport_adapters.codes import CloseCode
from transport_adapters.link import LinkOptions
from transport_adapters.memory import MemoryChannel, MemoryTransport, RelayConnection
from transport_adapters.secure_client.client import Message, SecureClient, TransportFactory
from transport_adapters.secure_client.parts import Pace, TokenProvider
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

T = TypeVar("T")
E = TypeVar("E", bound=events.Event)

EAGER = LinkOptions(first_backoff=0.01, max_backoff=0.05, jitter=lambda: 1.0)
QUICK = Pace(first_retry=0.01, longest_retry=0.05)
PATIENCE_SECONDS = 30.0

Tamper = Callable[[dict[str, Any]], object]
"""Changes the fields of a JSON answer in place, or returns what replaces the whole answer."""


@dataclass
class Faults:
    """What goes wrong at the HTTP interface, by path; and how often each path was asked."""

    tamper: dict[str, Tamper] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    """Paths that answer 503."""
    asked: list[str] = field(default_factory=list)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if scope["type"] == "http":
                self.asked.append(path)
            if scope["type"] == "http" and path in self.down:
                await _answer(send, 503, b"{}")
            elif scope["type"] == "http" and path in self.tamper:
                status, body = await _collected(app, scope, receive)
                fields = json.loads(body)
                replaced = self.tamper[path](fields) if status == 200 else None
                await _answer(send, status, json.dumps(fields if replaced is None else replaced).encode())
            else:
                await app(scope, receive, send)

        return faulty


@dataclass
class Actor:
    """A client and everything it said."""

    client: SecureClient
    store: Store
    told: list[events.Event]
    heard: asyncio.Event

    @property
    def user(self) -> str:
        return self.client.address.user_id

    def events(self, kind: type[E]) -> list[E]:
        return [event for event in self.told if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until events make a condition true."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self.heard.clear()
                await self.heard.wait()

    async def event(self, kind: type[E], count: int = 1) -> E:
        """Wait for the count-th event of a kind."""
        await self.until(lambda: len(self.events(kind)) >= count)
        return self.events(kind)[count - 1]

    async def take(self, count: int) -> list[Message]:
        """Receive and confirm."""
        messages = []
        for _ in range(count):
            message = await within(anext(self.client))
            await message.done()
            messages.append(message)
        return messages

    async def read(self, count: int = 1) -> list[bytes | str | None]:
        return [message.data for message in await self.take(count)]

    def change_list(self, *devices: ListedDevice) -> SignedDeviceList:
        """Sign the next list of this user, with other devices if any are named; publishing it is another matter."""
        messenger = self.client.messenger
        last = messenger.own_device_list().content
        content = DeviceList(
            user_id=last.user_id,
            account_key=last.account_key,
            seq=last.seq + 1,
            previous_hash=last.hash(),
            created_at=last.created_at + 1,
            expires_at=last.created_at + DEVICE_LIST_LIFETIME_MS,
            devices=ordered(devices) if devices else last.devices,
        )
        changed = messenger.account.sign_device_list(content)
        with self.store.write() as tx:
            records.save_own_device_list(tx, changed)
        return changed.signed

    async def publish(self, signed: SignedDeviceList) -> None:
        await self.client._parts.key_server.publish_device_list(signed)

    def count(self, table: Table) -> int:
        with self.store.read() as tx:
            return tx.count(table)


@dataclass
class ClientWorld:
    url: str
    directory: Path
    app: StandaloneApp
    faults: Faults
    server: uvicorn.Server
    now: Clock
    _clients: AsyncExitStack

    @property
    def services(self) -> Services:
        return self.app.services

    def memory(
        self, server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
    ) -> EnvelopeTransport:
        assert server == self.url
        return MemoryTransport(self.services.relay, token=token, cursor=cursor, options=EAGER)

    def token(self, user: str) -> TokenProvider:
        async def provide() -> str:
            return host_token(user, self.now())

        return provide

    async def open(
        self,
        user: str,
        *,
        store: Store | None = None,
        transport: TransportFactory | None = None,
        token: TokenProvider | None = None,
        server: str | None = None,
        pace: Pace = QUICK,
        online: bool = True,
    ) -> Actor:
        """Open a client on a store in memory unless another is given, and wait until it is online."""
        told: list[events.Event] = []
        heard = asyncio.Event()

        def note(event: events.Event) -> None:
            told.append(event)
            heard.set()

        kept = store or MemoryStore()
        client = await within(
            SecureClient.open(
                store=kept,
                server=server or self.url,
                token_provider=token or self.token(user),
                transport=transport or self.memory,
                user=user,
                on_event=note,
                pace=pace,
            )
        )
        self._clients.push_async_callback(client.aclose)
        if online:
            await within(client.online())
        return Actor(client, kept, told, heard)

    async def talking(self, first: str = "alice", second: str = "bob", **options: Any) -> tuple[Actor, Actor]:
        """Two clients whose session is established on both ends."""
        one, two = await self.open(first, **options), await self.open(second, **options)
        for sender, recipient in ((one, two), (two, one)):
            await sender.client.send(recipient.user, "hello")
            assert await recipient.read() == ["hello"]
        return one, two


class FaultyStore:
    """A store on a disk that is full for some transactions."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.failures_left: float = 0

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return self._inner.read()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._inner.write() as transaction:
            yield transaction
            if self.failures_left > 0:
                self.failures_left -= 1
                raise StoreUnavailableError("the disk is full")

    def close(self) -> None:
        self._inner.close()


class Gate:
    """A way to the relay of this process that can be shut, which cuts every connection through it."""

    def __init__(self, world: ClientWorld) -> None:
        self._world = world
        self._open: list[tuple[RelayConnection, MemoryChannel]] = []
        self.is_shut = False

    def __call__(
        self, server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
    ) -> EnvelopeTransport:
        assert server == self._world.url
        return MemoryTransport(self, token=token, cursor=cursor, options=EAGER)

    def connect(self, channel: MemoryChannel) -> RelayConnection:
        if self.is_shut:
            raise OSError("the gate is shut")
        connection = self._world.services.relay.connect(channel)
        self._open.append((connection, channel))
        return connection

    async def shut(self) -> None:
        self.is_shut = True
        ending, self._open = self._open, []
        for connection, channel in ending:
            connection.disconnected()
            await channel.close(CloseCode.DRAINING)

    def reopen(self) -> None:
        self.is_shut = False


class Tap:
    """A transport over the memory transport that shows, changes, withholds, adds and answers what a test wants."""

    def __init__(self, world: ClientWorld) -> None:
        self._world = world
        self._inner: EnvelopeTransport | None = None
        self._arriving: asyncio.Queue[Incoming | BaseException | None] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None
        self.sent: list[Outgoing] = []
        self.acked: list[tuple[int, Sequence[SeqRange]]] = []
        self.connected: Connected | None = None
        self.delivered: list[Delivery] = []
        """What the real relay delivered."""
        self.answer: Callable[[Outgoing], SendResult | None] = lambda _: None
        """Answers a send itself, or leaves it to the real relay."""
        self.change: Callable[[Incoming], Sequence[Incoming]] = lambda incoming: [incoming]
        self.after_acks: asyncio.Event = asyncio.Event()

    def __call__(
        self, server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]
    ) -> EnvelopeTransport:
        self._inner = self._world.memory(server, token=token, cursor=cursor)
        return self

    def inject(self, incoming: Incoming) -> None:
        self._arriving.put_nowait(incoming)

    async def send(self, outgoing: Outgoing) -> SendResult:
        self.sent.append(outgoing)
        assert self._inner is not None
        return self.answer(outgoing) or await self._inner.send(outgoing)

    async def receive(self) -> AsyncIterator[Incoming]:
        self._pump = asyncio.create_task(self._take())
        while (arrived := await self._arriving.get()) is not None:
            if isinstance(arrived, BaseException):
                raise arrived
            yield arrived

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        self.acked.append((epoch, ranges))
        assert self._inner is not None
        await self._inner.ack(epoch, ranges)
        self.after_acks.set()

    async def signal(self, signal: Signal) -> None:
        assert self._inner is not None
        await self._inner.signal(signal)

    async def aclose(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        assert self._inner is not None
        await self._inner.aclose()

    async def _take(self) -> None:
        assert self._inner is not None
        try:
            async for incoming in self._inner.receive():
                if isinstance(incoming, Delivery):
                    self.delivered.append(incoming)
                elif isinstance(incoming, Connected):
                    self.connected = incoming
                for each in self.change(incoming):
                    self.inject(each)
        except Exception as error:  # noqa: BLE001 - handed over
            self._arriving.put_nowait(error)
        else:
            self._arriving.put_nowait(None)


def eager_socketio(server: str, *, token: TokenProvider, cursor: Callable[[], Awaitable[Cursor]]) -> EnvelopeTransport:
    return SocketIoTransport(server, token=token, cursor=cursor, options=SocketIoOptions(link=EAGER))


@asynccontextmanager
async def client_world(
    directory: Path,
    *,
    now: Clock = system_clock,
    token_seconds: int = 900,
    may_see: ContactRule = nobody,
    **changes: Any,
) -> AsyncIterator[ClientWorld]:
    """Run a server on a free port of loopback until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # A copy is not validated, so tokens may be shorter-lived than operators can make them.
        short = settings(directory / "server.db", origin=url, **changes).model_copy(
            update={"token_seconds": token_seconds}
        )
        app, faults = create_app(short, may_see=may_see, now=now), Faults()
        config = uvicorn.Config(faults.wrap(app), log_config=None, lifespan="on", timeout_graceful_shutdown=3)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        async with AsyncExitStack() as clients:
            while not server.started:
                assert not serving.done()
                await asyncio.sleep(0.005)
            yield ClientWorld(url, directory, app, faults, server, now, clients)
        server.should_exit = True
        await serving


async def within(awaitable: Awaitable[T], seconds: float = PATIENCE_SECONDS) -> T:
    """Wait; a test that would hang fails instead."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def _collected(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, bytes]:
    parts: list[MutableMapping[str, Any]] = []

    async def keep(message: AsgiMessage) -> None:
        parts.append(message)

    await app(scope, receive, keep)
    return parts[0]["status"], b"".join(part.get("body", b"") for part in parts[1:])


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
