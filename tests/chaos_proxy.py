"""A TCP proxy on loopback that is a bad network, on command.

Owns: how bytes are delayed, slowed down, swallowed, and how connections end. What it draws, it draws from its seed and
the number of the connection, never from the clock.
Does not know about: what the bytes are, when a test calls for which fault.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Final, TypeVar

Proxy = TypeVar("Proxy", bound="ChaosProxy")

_CHUNK: Final = 16 * 1024
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Weather:
    """What happens to bytes on their way. Seconds and bytes."""

    delay: float = 0.0
    jitter: float = 0.0
    """At most so much more, for each piece anew; pieces stay in order."""
    bandwidth: float = float("inf")
    """Bytes per second in each direction."""
    piece: int = _CHUNK
    """Bytes read at once. With few, and a delay, the proxy drains slowly and its sender has to wait."""


FAIR: Final = Weather()


class Admission(Enum):
    """What becomes of new connections."""

    OPEN = auto()
    REFUSED = auto()
    """Reset at once."""
    SWALLOWED = auto()
    """Accepted, read, and never answered."""


@dataclass(eq=False)
class Passage:
    """One connection through the proxy: both its ends."""

    proxy: "ChaosProxy"
    number: int
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    is_half_open: bool = False
    """Bytes are read and thrown away, in both directions, and so is the news that an end has closed."""
    pumps: list["asyncio.Task[None]"] = field(default_factory=list)

    def ends(self) -> list[asyncio.StreamWriter]:
        return [end for end in (self.near, self.far) if end is not None]

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, way: str) -> None:
        draws = Random(f"{self.proxy.seed} {self.number} {way}")
        try:
            while piece := await reader.read(self.proxy.weather.piece):
                weather = self.proxy.weather
                pause = weather.delay + draws.random() * weather.jitter + len(piece) / weather.bandwidth
                if pause > 0:
                    await asyncio.sleep(pause)
                if writer is not None and not self.is_half_open:
                    writer.write(piece)
                    await writer.drain()
        except OSError:
            if not self.is_half_open:
                self.reset()
            return
        if not self.is_half_open and writer is not None:
            with contextlib.suppress(OSError):
                writer.close()

    def cut(self) -> None:
        """End both ends in good order: FIN."""
        for end in self.ends():
            end.close()

    def reset(self) -> None:
        """End both ends at once, what is under way included: RST."""
        for end in self.ends():
            raw = end.get_extra_info("socket")
            if raw is not None and not end.transport.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            end.transport.abort()


class ChaosProxy:
    """Passes connections on to a port of loopback."""

    def __init__(self, port: int, seed: object = 0) -> None:
        self.target = port
        self.seed = seed
        self.weather = FAIR
        self.admission = Admission.OPEN
        self.passages: set[Passage] = set()
        self.accepted = 0
        self.port = 0

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections in good order."""
        for passage in list(self.passages):
            passage.cut()

    def reset(self) -> None:
        """End all connections at once."""
        for passage in list(self.passages):
            passage.reset()

    def half_open(self) -> None:
        """Swallow, from now on, what comes on the connections there are; neither end is told."""
        for passage in self.passages:
            passage.is_half_open = True

    def heal(self) -> None:
        """Be a good network again. Half-open connections stay what they are, as their ends' streams are torn."""
        self.weather, self.admission = FAIR, Admission.OPEN

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.accepted += 1
        passage = Passage(self, self.accepted, writer)
        self.passages.add(passage)
        try:
            await self._serve(passage, reader)
        finally:
            for task in passage.pumps:
                task.cancel()
            passage.reset()
            self.passages.discard(passage)

    async def _serve(self, passage: Passage, reader: asyncio.StreamReader) -> None:
        if self.admission is Admission.REFUSED:
            return
        if self.admission is Admission.SWALLOWED:
            passage.is_half_open = True
            await passage.pump(reader, None, "up")
            return
        try:
            far_reader, passage.far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        up = asyncio.create_task(passage.pump(reader, passage.far, "up"))
        down = asyncio.create_task(passage.pump(far_reader, passage.near, "down"))
        passage.pumps += [up, down]
        await asyncio.wait(passage.pumps)


@asynccontextmanager
async def running(proxy: Proxy) -> AsyncIterator[Proxy]:
    """Run a proxy until the block ends; then reset what is left."""
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.accept(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_CHUNK)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        await server.wait_closed()
