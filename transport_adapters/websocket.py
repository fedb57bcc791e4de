"""WebSocket, client side.

Owns: the `websockets` package's client, its own reconnecting and pings unused (link.py reconnects, the relay pings).
Does not know about: what frames mean.

The device token goes in the first frame only, so its loggers are silent: at the level DEBUG they would print it.
"""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass, field
from typing import Final, final

from e2ee.errors import MalformedMessageError
from transport_adapters.frames import ClientFrame
from transport_adapters.link import (
    CursorSource,
    Link,
    LinkOptions,
    LinkTransport,
    Receiver,
    TokenSource,
    require_secure,
)
from transport_adapters.text import MAX_TEXT, decode_frame, encode_frame

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, WebSocketException
except ImportError as missing:
    raise ImportError("transport_adapters.websocket needs websockets: install 'e2ee-layer[websocket]'") from missing

PATH: Final = "/e2ee/ws"
CLOSE_TIMEOUT: Final = 2
"""Seconds that a server has to answer the closing handshake."""
MAX_WAITING: Final = 16
"""Messages that wait to be taken off the library; beyond it the server's are not read."""

_silent = logging.getLogger("transport_adapters.websocket.silent")
_silent.disabled = True  # whatever level the application sets on its loggers


@final
@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """Where the server mounts the endpoint, and how to reach it. `tls` replaces the system's certificate store."""

    path: str = PATH
    tls: ssl.SSLContext | None = None
    link: LinkOptions = field(default_factory=LinkOptions)


@final
class WebSocketTransport(LinkTransport):
    """Implements `EnvelopeTransport` over a WebSocket. `url` is the server's: http, https, ws or wss.

    Raises:
        InsecureUrlError: a plaintext URL to a host that is not loopback.
        ValueError: not a URL.
    """

    def __init__(
        self, url: str, *, token: TokenSource, cursor: CursorSource, options: WebSocketOptions | None = None
    ) -> None:
        require_secure(url)
        self._options = options or WebSocketOptions()
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme.lower().replace('http', 'ws')}://{rest.rstrip('/')}{self._options.path}"
        super().__init__(Link(self._dial, token, cursor, self._options.link))

    async def _dial(self, receiver: Receiver) -> "_WebSocketWire":
        is_secure = self._url.startswith("wss:")
        connecting = _Connect(
            self._url,
            ssl=(self._options.tls or True) if is_secure else None,
            compression=None,  # ciphertext does not compress
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=MAX_TEXT,
            max_queue=MAX_WAITING,
            proxy=None,
            logger=_silent,
        )
        try:
            socket = await connecting
        except (WebSocketException, EOFError) as error:
            raise OSError("the server does not speak WebSocket") from error
        return _WebSocketWire(socket, receiver, self._options.link.silence_timeout)


@final
class _Connect(connect):
    """Follows no redirect: the token is for the server that the application named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@final
class _WebSocketWire:
    """One connection."""

    def __init__(self, socket: ClientConnection, receiver: Receiver, patience: float) -> None:
        self._socket = socket
        self._receiver = receiver
        self._patience = patience
        self._reading = asyncio.create_task(self._read())

    async def write(self, frame: ClientFrame) -> None:
        try:
            await self._socket.send(encode_frame(frame))
        except ConnectionClosed as error:
            raise OSError("the WebSocket is gone") from error

    async def close(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await self._socket.close()

    async def _read(self) -> None:
        """Hand over what comes. The relay pings: a connection on which nothing comes is dead."""
        try:
            while True:
                async with asyncio.timeout(self._patience):
                    message = await self._socket.recv()
                self._receiver.frame(*decode_frame(message if isinstance(message, str) else ""))
        except TimeoutError:
            self._receiver.lost(silent=True)
        except (ConnectionClosed, MalformedMessageError):
            self._receiver.lost()
