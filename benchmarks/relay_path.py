"""Envelopes over a real server: accepted, stored, delivered and acked, against a bare Socket.IO relay with one INSERT.

Owns: the load, its clients, both servers' processes.
Does not know about: cryptography: the envelopes hold random bytes.

Server and clients are a process each, so on two cores neither waits for the other. Both sides send the same bytes
between the same number of pairs, with the same number of messages under way.
"""

import asyncio
import contextlib
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, final

import httpx
import socketio

from benchmarks.harness import Row, at_least, plain
from e2ee.messenger import Messenger
from e2ee.stores.memory import MemoryStore
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import EnvelopeId, UserId
from keyserver.client import KeyServerClient
from transport_adapters.base import Accepted, Cursor, Delivery, EnvelopeTransport, ListClaim, Outgoing, SeqRange
from transport_adapters.socketio import SocketIoTransport
from transport_adapters.websocket import WebSocketTransport

_Transport = type[SocketIoTransport] | type[WebSocketTransport]
_TRANSPORTS: Final[dict[str, _Transport]] = {"Socket.IO": SocketIoTransport, "WebSocket": WebSocketTransport}
_BARE: Final = "bare"
PAIRS, WINDOW, MESSAGES = 8, 32, 400
"""Pairs that talk at once, messages each has under way, and messages of each in one round."""
_ROUNDS, _LOW_RATE = 3, 300
_BODY = 700


def rows() -> Iterator[Row]:
    """Measure."""
    yield from asyncio.run(_rows())


async def _rows() -> list[Row]:
    kinds = {name: partial(_ours, transport) for name, transport in _TRANSPORTS.items()} | {_BARE: _bare}
    figures = {name: _Figures() for name in kinds}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(_ROUNDS):
            for name, kind in kinds.items():
                place = Path(directory) / f"{name}{number}"
                place.mkdir()
                async with kind(place) as site:
                    await figures[name].take(site)
    bare = figures.pop(_BARE)
    return [row for name, ours in figures.items() for row in _compared(name, ours, bare)]


def _compared(name: str, ours: "_Figures", bare: "_Figures") -> Iterator[Row]:
    throughput = f"{name}: envelopes stored, delivered and acked / a bare relay"
    yield at_least(throughput, (statistics.median(ours.rates), statistics.median(bare.rates)), "/s", 0.5)
    yield plain(f"{name}: from send to delivery at a low rate, median", (ours.latency(50), bare.latency(50)), "us")
    yield plain(f"{name}: the same, 99th percentile", (ours.latency(99), bare.latency(99)), "us")
    yield plain(f"{name}: memory of one idle connection", (min(ours.memory), min(bare.memory)), "KiB")


@final
@dataclass(frozen=True, slots=True)
class _Site:
    """A running server and its clients. `talk` sends so many messages in each pair; `once` sends one, and waits."""

    talk: Callable[[int], Awaitable[None]]
    once: Callable[[], Awaitable[None]]
    memory: float
    """KiB that each connection after the first added to the server's process: the first also brings what all share."""


@final
class _Figures:
    def __init__(self) -> None:
        self.rates: list[float] = []
        self.memory: list[float] = []
        self._latencies: list[float] = []

    async def take(self, site: _Site) -> None:
        self.memory.append(site.memory)
        await site.talk(WINDOW)  # warm
        start = time.perf_counter()
        await site.talk(MESSAGES)
        self.rates.append(PAIRS * MESSAGES / (time.perf_counter() - start))
        for _ in range(_LOW_RATE):
            await asyncio.sleep(0.005)
            start = time.perf_counter()
            await site.once()
            self._latencies.append((time.perf_counter() - start) * 1e6)

    def latency(self, percent: int) -> float:
        return statistics.quantiles(self._latencies, n=100)[percent - 1]


# --- ours


@final
@dataclass(eq=False)
class Device:
    """A registered device and its transport."""

    messenger: Messenger
    transport: EnvelopeTransport
    claim: ListClaim
    counter: int = 0
    received: int = 0
    unacked: list[Delivery] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    online: asyncio.Event = field(default_factory=asyncio.Event)

    def outgoing(self, recipient: "Device") -> Outgoing:
        self.counter += 1
        addresses = self.messenger.address, recipient.messenger.address
        envelope_id = EnvelopeId(secrets.token_bytes(EnvelopeId.LENGTH))
        envelope = Envelope(envelope_id, *addresses, Lane.CHAT, 3600, bytes(_BODY))
        return Outgoing(self.counter, envelope.encode(), envelope_id, recipient.claim, self.claim)

    async def connect(self, stack: contextlib.AsyncExitStack) -> None:
        task = asyncio.create_task(self._take())

        async def end() -> None:
            await self.transport.aclose()
            await asyncio.wait([task])

        stack.push_async_callback(end)
        await self.online.wait()

    async def _take(self) -> None:
        """Take what arrives, and acknowledge what has arrived since the last acknowledgement went out."""
        acknowledging = asyncio.create_task(self._acknowledge())
        try:
            async for item in self.transport.receive():
                if isinstance(item, Delivery):
                    self.unacked.append(item)
                    self.received += 1
                    self.news.set()
                    self.arrived.set()
                else:
                    self.online.set()
        finally:
            acknowledging.cancel()

    async def until(self, count: int) -> None:
        while self.received < count:
            self.arrived.clear()
            await self.arrived.wait()

    async def _acknowledge(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            due, self.unacked = self.unacked, []
            ranges = [SeqRange(due[0].seq, due[-1].seq)]
            await self.transport.ack(due[0].epoch, ranges)


@asynccontextmanager
async def _ours(make: "_Transport", directory: Path) -> AsyncIterator[_Site]:
    command = ["-m", "keyserver", "serve", "--dev", "--port", "0", "--database", str(directory / "server.db")]
    async with _serving(*command) as server, contextlib.AsyncExitStack() as stack, httpx.AsyncClient() as http:
        devices = [await _device(f"user{number}", server.url, make, http, stack) for number in range(2 * PAIRS)]
        pairs = list(zip(devices[::2], devices[1::2], strict=True))
        await devices[0].connect(stack)
        before = server.memory()
        for device in devices[1:]:
            await device.connect(stack)
        memory = (server.memory() - before) / len(devices[1:])

        async def talk(count: int) -> None:
            await asyncio.gather(*(_talk(sender, recipient, count) for sender, recipient in pairs))

        yield _Site(talk, lambda: _talk(*pairs[0], 1), memory)


async def _talk(sender: Device, recipient: Device, count: int) -> None:
    wanted = recipient.received + count
    window = asyncio.Semaphore(WINDOW)

    async def send() -> None:
        async with window:
            answer = await sender.transport.send(sender.outgoing(recipient))
            if not isinstance(answer, Accepted):
                raise RuntimeError(f"the server refused: {answer}")

    await asyncio.gather(*(send() for _ in range(count)))
    await recipient.until(wanted)


async def _device(
    name: str, url: str, make: "_Transport", http: httpx.AsyncClient, stack: contextlib.AsyncExitStack
) -> Device:
    messenger = Messenger.create(MemoryStore(), UserId(name))

    async def host_token() -> str:
        return str((await http.post(f"{url}/dev/token", json={"user": name})).json()["token"])

    async def counter() -> int:
        return messenger.registration.next_assertion_counter()

    server = KeyServerClient(
        url, messenger.address, host_token=host_token, sign=messenger.registration.sign_assertion, next_counter=counter
    )
    stack.push_async_callback(server.aclose)
    party = messenger.account.party
    await server.register_device(party.device_signing_key, party.identity_key)
    own = messenger.own_device_list()
    await server.publish_device_list(own.signed)

    async def cursor() -> Cursor:
        return Cursor(0, 0)

    transport = make(url, token=server.device_token, cursor=cursor)
    await server.device_token()
    return Device(messenger, transport, ListClaim(own.content.seq, own.content.hash().raw))


# --- the reference


@asynccontextmanager
async def _bare(directory: Path) -> AsyncIterator[_Site]:
    async with _serving("-m", "benchmarks.bare_relay", str(directory / "bare.db")) as server:
        clients = [_BareClient(f"user{number}") for number in range(2 * PAIRS)]
        pairs = list(zip(clients[::2], clients[1::2], strict=True))
        await clients[0].connect(server.url)
        before = server.memory()
        for client in clients[1:]:
            await client.connect(server.url)
        memory = (server.memory() - before) / len(clients[1:])

        async def talk(count: int) -> None:
            await asyncio.gather(*(sender.talk(recipient, count) for sender, recipient in pairs))

        async def once() -> None:
            sender, recipient = pairs[0]
            await sender.talk(recipient, 1)

        try:
            yield _Site(talk, once, memory)
        finally:
            for client in clients:
                await client.sio.disconnect()


@final
class _BareClient:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sio = socketio.AsyncClient(reconnection=False)
        self.received = 0
        self.arrived = asyncio.Event()
        self._answers: dict[int, asyncio.Event] = {}
        self._number = 0
        self.sio.on("stored", self._stored)
        self.sio.on("message", self._message)

    async def connect(self, url: str) -> None:
        await self.sio.connect(url, transports=["websocket"])
        await self.sio.emit("join", self.name)

    async def talk(self, recipient: "_BareClient", count: int) -> None:
        wanted = recipient.received + count
        window = asyncio.Semaphore(WINDOW)
        await asyncio.gather(*(self._send(window, recipient.name) for _ in range(count)))
        while recipient.received < wanted:
            recipient.arrived.clear()
            await recipient.arrived.wait()

    async def _send(self, window: asyncio.Semaphore, recipient: str) -> None:
        async with window:
            self._number += 1
            number, answer = self._number, asyncio.Event()
            self._answers[number] = answer
            await self.sio.emit("message", (recipient, number, bytes(_BODY)))
            await answer.wait()

    def _stored(self, number: int) -> None:
        self._answers.pop(number).set()

    async def _message(self, number: int, _body: bytes) -> None:
        self.received += 1
        self.arrived.set()
        await self.sio.emit("seen", number)


@final
@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    pid: int

    def memory(self) -> float:
        """Return the resident memory of the process in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return float(status.partition("VmRSS:")[2].split()[0])


@asynccontextmanager
async def _serving(*command: str) -> AsyncIterator[_Server]:
    """Run a server that prints its URL at the end of its first line."""
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield _Server((await process.stdout.readline()).decode().split()[-1], process.pid)
    finally:
        process.terminate()
        await process.wait()
