"""WebSocket, server side: an ASGI application for one path.

Owns: the way of frames over a WebSocket, close codes.
Does not know about: what frames mean; where it is mounted (mount.py).

A frame is one text message (text.py). Whatever else a peer sends counts as a bad frame.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_ENVELOPE
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import ServerFrame
from transport_adapters.server.channel import Carriage
from transport_adapters.server.connection import Connection
from transport_adapters.server.heartbeat import Liveness
from transport_adapters.server.relay import Relay
from transport_adapters.text import MAX_TEXT, decode_frame, encode_frame

_logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CARRIAGE: Final = Carriage(held=32 * 1024, as_text=True, liveness=Liveness.PINGED)
"""`BoundedWebSocket` returns from a write when the server holds no more than this."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a close frame may be held up by a peer that does not read."""
_TALKATIVE: Final = ("uvicorn.error", "websockets.server")


@final
class WebSocketEndpoint:
    """Serves a relay's frames. Mount it on a WebSocket route of any ASGI application."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._warned = False

    async def __call__(self, _scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        self._check_logging()
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        channel = WebSocketChannel(send)
        connection = self._relay.connect(channel, CARRIAGE)
        reading = asyncio.create_task(_read(receive, connection))
        closed = asyncio.create_task(channel.closed.wait())
        try:
            await asyncio.wait([reading, closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.disconnected()
            reading.cancel()
            closed.cancel()

    def _check_logging(self) -> None:
        if not self._warned and any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in _TALKATIVE):
            self._warned = True
            _logger.warning("The server's log level is DEBUG: it prints parts of frames")


@final
class WebSocketChannel:
    """One client's WebSocket, as the relay writes to it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.closed = asyncio.Event()
        """Set when the relay has ended the connection."""

    async def send(self, frame: ServerFrame) -> None:
        message = {"type": "websocket.send", "text": encode_frame(frame)}
        del frame  # from here on its text is what is held
        await self._send(message)

    async def close(self, code: CloseCode) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._send({"type": "websocket.close", "code": int(code)})
        except Exception:  # noqa: BLE001, S110 - a server's own errors for "gone already"; that is what was wanted
            pass
        self.closed.set()


async def _read(receive: Receive, connection: Connection) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None and len(text) > MAX_TEXT:
            connection.end(ErrorCode.TOO_LARGE, CloseCode.TOO_LARGE, f"an envelope has at most {MAX_ENVELOPE} bytes")
            continue
        try:
            connection.receive(*decode_frame(text or ""))
        except MalformedMessageError:
            connection.receive(None, None)  # which refuses it, and counts
