"""uvicorn's HTTP protocol, with gaps closed that an ASGI application cannot see.

Owns: how long a peer may take for the head of a request, how much of a response waits in the server, for how long a
finished connection may linger.
Does not know about: requests and responses. `uvicorn.Config(app, http=BoundedHttp)`.

uvicorn waits without end for the head of a request, and for a peer to read what is left of a response when a connection
is closed. A peer that does neither would hold a socket and its buffers for as long as it likes.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final

from uvicorn.protocols.http.h11_impl import H11Protocol

from transport_adapters.server.websocket_protocol import without_delay

HIGH_WATER: Final = 32 * 1024
"""Bytes not taken by the kernel yet, above which the next write waits."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for the head of a request, from its first byte; for the first request, from the connection on."""
LINGER: Final = 2.0
"""Seconds for the last bytes, once a connection is to be closed."""


@final
class BoundedHttp(H11Protocol):
    """Drops peers that take too long to ask, or to read the end."""

    head_timeout = HEAD_TIMEOUT

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, with a small write buffer."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        without_delay(transport)
        self._head: asyncio.TimerHandle | None = None
        self._inner = self.app
        self.app = self._served
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a request's head must be complete in time."""
        if self._is_idle():
            self._expect_head()
        super().data_received(data)
        if not self._is_idle():
            self._forget_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._forget_head()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand over to the WebSocket protocol."""
        self._forget_head()
        super().handle_websocket_upgrade(event)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing more came."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER, self.transport.abort)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.head_timeout, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    async def _served(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        try:
            await self._inner(scope, receive, send)
        finally:
            self.loop.call_later(LINGER, self._drop_if_closing)

    def _drop_if_closing(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
