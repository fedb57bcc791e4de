"""uvicorn's HTTP protocol, with gaps closed that an ASGI application cannot see.

Owns: how long a peer may take for the head of a request, how much of a response waits in the server and for how long
if nobody reads it, for how long a finished connection may linger, that a small response is one write.
Does not know about: requests and responses. `uvicorn.Config(app, http=BoundedHttp)`.

uvicorn waits without end for the head of a request, and for a peer to read, also when a connection is closed. A peer
that does neither would hold a socket and its buffers for as long as it likes.

And it writes a response in two parts, head and body: two system calls and two packets where one does. ASGI has a server
wait with the head until there is something of the body.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast, final

from uvicorn.protocols.http.h11_impl import H11Protocol

from transport_adapters.server.websocket_protocol import without_delay

HIGH_WATER: Final = 32 * 1024
"""Bytes not taken by the kernel yet, above which the next write waits."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for the head of a request, from its first byte; for the first request, from the connection on."""
READ_TIMEOUT: Final = 20.0
"""Seconds in which a peer takes something of what waits for it. The relay gives up sooner, and says so."""
LINGER: Final = 2.0
"""Seconds for the last bytes, once a connection is to be closed."""


@final
class BoundedHttp(H11Protocol):
    """Drops peers that take too long to ask, or to read the end."""

    head_timeout = HEAD_TIMEOUT
    read_timeout = READ_TIMEOUT
    _is_websocket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, with a small write buffer."""
        self._joining = _Joining(transport)
        super().connection_made(cast(asyncio.Transport, self._joining))
        transport.set_write_buffer_limits(high=HIGH_WATER)
        without_delay(transport)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._inner = self.app
        self.app = self._served
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a request's head must be complete in time."""
        super().data_received(data)
        if self._is_idle():
            self._expect_head()
        else:
            self._forget_head()

    def eof_received(self) -> None:
        """The peer says no more, and the transport closes; what is left for the peer must be read in time."""
        super().eof_received()
        self.loop.call_later(LINGER, self._drop_if_closing)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._forget_head()
        self._forget_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Write no more until the peer has read; it has to go on reading."""
        super().pause_writing()
        self._expect_reading(None)

    def resume_writing(self) -> None:
        """Write again."""
        self._forget_unread()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand over to the WebSocket protocol."""
        self._is_websocket = True
        self._forget_head()
        self._forget_unread()
        self.transport = self._joining.transport
        super().handle_websocket_upgrade(event)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing more came."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER, self.transport.abort)

    def _is_idle(self) -> bool:
        """Say whether the next bytes are a request's head."""
        return not self._is_websocket and (self.cycle is None or self.cycle.response_complete)

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.head_timeout, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _expect_reading(self, before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self.read_timeout, self._expect_reading, left)

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    async def _served(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        async def sending(message: Any) -> None:
            self._joining.hold = message["type"] == "http.response.start"
            await send(message)

        is_in_order = False
        try:
            await self._inner(scope, receive, sending)
            is_in_order = self._is_idle() and not self.transport.is_closing()
        finally:
            # What is in order stays open, and is not closed by what uvicorn does next. A timer for each request would
            # keep them all for so long.
            if not is_in_order:
                self.loop.call_later(LINGER, self._drop_if_closing)

    def _drop_if_closing(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()


@final
class _Joining:
    """A transport that may keep what is written until the next write. All that uvicorn asks of one over HTTP."""

    __slots__ = ("_held", "hold", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.hold = False
        """Keep what is written from now on."""
        self._held = b""

    def write(self, data: bytes) -> None:
        """Write, with what was kept before."""
        if self.hold:
            self._held += data
            return
        if self._held:
            data, self._held = self._held + data, b""
        self.transport.write(data)

    def close(self) -> None:
        """Write what was kept, and close."""
        self.hold = False
        if self._held and not self.is_closing():  # uvloop raises when nothing is written to what is closed
            self.write(b"")
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def is_closing(self) -> bool:
        """Say whether it is closed, or will be."""
        return self.transport.is_closing()

    def pause_reading(self) -> None:
        """Read no more."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait here and for the kernel."""
        return len(self._held) + self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say about the connection what it is asked."""
        return self.transport.get_extra_info(name, default)
