"""Every transport side by side: bytes on the wire and messages per second, with a WebSocket as the reference.

Owns: counting bytes between clients and server or broker, the load.
Does not know about: what the frames hold: the envelopes are random bytes.

Relay and clients share one process, so the rates compare transports and say nothing about a server. Bytes are TCP
payload of both clients together, without TLS; a message is sent, answered, delivered and acknowledged.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import socketio
from starlette.applications import Starlette

from benchmarks.harness import Row, plain
from e2ee.wire.identifiers import DeviceAddress
from tests.chaos_roads import BROKERED, NETWORKED, XMPP_PASSWORD, XMPP_USER
from tests.contract.brokers import Brokers, joined
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, relay_world
from tests.contract.socketio_server import served
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import Prosody
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.socketio import attach

_REFERENCE: Final = "websocket"
_MESSAGES, _WINDOW, _ONE_BY_ONE = 600, 32, 100
_BODIES: Final = {"small": 376, "large": 4_096}
"""Bytes: about those of a line of text, and of a long one. The rate is that of the small one."""
_LINK: Final = replace(EAGER_LINK, silence_timeout=60.0)


class _Bytes(NamedTuple):
    """Of a message: towards server or broker, and towards the clients."""

    envelope: int
    up: float
    down: float


class _Cost(NamedTuple):
    rate: float
    bytes_of: dict[str, _Bytes]


def rows() -> Iterator[Row]:
    """Measure."""
    costs = asyncio.run(_measure())
    reference = costs[_REFERENCE]
    for name, cost in costs.items():
        for size, ours in cost.bytes_of.items():
            theirs, what = reference.bytes_of[size], f"{name}: bytes for an envelope of {ours.envelope} B"
            yield plain(f"{what}, up / WebSocket", (ours.up, theirs.up), "B")
            yield plain(f"{what}, down / WebSocket", (ours.down, theirs.down), "B")
        yield plain(f"{name}: messages stored, delivered and acked / WebSocket", (cost.rate, reference.rate), "/s")


async def _measure() -> dict[str, _Cost]:
    costs = {}
    with Mosquitto(tls=False) as mosquitto, Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        for name in (_REFERENCE, *(each for each in NETWORKED if each != _REFERENCE)):
            with tempfile.TemporaryDirectory() as directory:
                brokers = (mosquitto, prosody) if name in BROKERED else None
                costs[name] = await _cost(name, Path(directory), brokers)
    return costs


async def _cost(name: str, directory: Path, brokers: Brokers) -> _Cost:
    async with relay_world(directory) as world, joined(name, brokers, world) as (bridge, port):
        alice, bob = await world.device("alice"), await world.device("bob")
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, Starlette(routes=endpoints(world.relay, mqtt=bridge))), world.relay)
        async with served(app) as (url, _), _counter(port or int(url.rpartition(":")[2])) as counter:
            peers = []
            for owner in (alice, bob):

                async def token(owner: DeviceAddress = owner) -> str:
                    return world.tokens.issue(owner)

                cell = CursorCell()
                transport = NETWORKED[name](f"http://127.0.0.1:{counter.port}", url, token, cell, _LINK)
                peers.append(Peer(transport, cell))
                await peers[-1].online()
            small = _BODIES["small"]
            await _send(world, peers, small, _WINDOW, _WINDOW)  # warm
            began = time.perf_counter()
            await _send(world, peers, small, _MESSAGES, _WINDOW)
            rate = _MESSAGES / (time.perf_counter() - began)
            bytes_of = {}
            for size, body in _BODIES.items():
                up, down = counter.up, counter.down
                await _send(world, peers, body, _ONE_BY_ONE, 1)
                envelope = len(world.outgoing(alice, bob, bytes(body)).envelope)
                passed = (counter.up - up) / _ONE_BY_ONE, (counter.down - down) / _ONE_BY_ONE
                bytes_of[size] = _Bytes(envelope, *passed)
            cost = _Cost(rate, bytes_of)
            for peer in peers:
                await peer.close()
            await world.relay.close()
        await sio.shutdown()
    return cost


async def _send(world: RelayWorld, peers: list[Peer], body: int, count: int, window: int) -> None:
    """Send bodies of so many bytes from the first to the second, and wait until all are acknowledged.

    `window` are under way at once.
    """
    sender, recipient = peers
    room = asyncio.Semaphore(window)
    alice, bob = await world.device("alice"), await world.device("bob")

    async def one(sent: bytes) -> None:
        await sender.transport.send(world.outgoing(alice, bob, sent))

    async def take() -> None:
        for _ in range(count):
            await recipient.ack(await recipient.deliveries.get())
            room.release()

    taking = asyncio.create_task(take())
    async with asyncio.TaskGroup() as sends:
        for _ in range(count):
            await room.acquire()
            sends.create_task(one(secrets.token_bytes(body)))
    await taking


class _Counter:
    """Counts what passes between clients and a port."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self.up = self.down = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        for ends in ((reader, far_writer, "up"), (far_reader, writer, "down")):
            task = asyncio.create_task(self._pass(*ends))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        try:
            while piece := await reader.read(65536):
                setattr(self, way, getattr(self, way) + len(piece))
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def _counter(target: int) -> AsyncIterator[_Counter]:
    counter = _Counter(target)
    server = await asyncio.start_server(counter.accept, "127.0.0.1", 0)
    counter.port = server.sockets[0].getsockname()[1]
    yield counter
    server.close()
    await counter.close()
