"""uvicorn's WebSocket protocol, with gaps closed that an ASGI application cannot see.

Owns: reading from a peer that does not read, when a write is done, for how long a finished connection may linger, small
writes without delay.
Does not know about: Socket.IO, frames. `uvicorn.Config(app, ws=BoundedWebSocket)`.

uvicorn answers WebSocket pings as they come and keeps the answers without bound: a peer that pings and never reads
would fill the memory. A write returns at once, whatever its size, and only the next one waits. And a finished
connection waits until the peer has read what is left, for as long as it likes.
And asyncio switches Nagle's algorithm off only on listeners that it made itself or that name their protocol: on others
a frame of two small writes waits 40 ms for the acknowledgement of the first.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Final, final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent

LINGER: Final = 2.0
"""Seconds for the last bytes, once the application is done with a connection."""

HIGH_WATER: Final = 32 * 1024
"""Bytes not taken by the kernel yet, above which a write is not done."""


@final
class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Reads nothing while the peer leaves too much unread; drops the connection soon after the application is done."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection: small writes go out at once, and few bytes wait."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        without_delay(transport)

    async def send(self, message: "ASGISendEvent") -> None:
        """Write, and return once the kernel has taken most of it."""
        await super().send(message)
        await self.writable.wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> "ASGIReceiveEvent":
        message = await super().receive()
        if not self.writable.is_set():
            self.transport.pause_reading()
        return message

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        super().on_task_complete(task)
        self.loop.call_later(LINGER, self.transport.abort)


def without_delay(transport: asyncio.BaseTransport) -> None:
    """Let small writes go out at once (TCP_NODELAY)."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
