"""Socket.IO, client side: a namespace on a connection of its own.

Owns: python-socketio's client, its own reconnecting switched off (link.py reconnects).
Does not know about: what frames mean.

WebSocket only: no sticky sessions are needed, and there is one connection to guard. Its loggers are silent, because
at the level INFO they would print tokens.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

from transport_adapters.frames import SERVER_EVENTS, ClientFrame
from transport_adapters.link import (
    CursorSource,
    Link,
    LinkOptions,
    LinkTransport,
    Receiver,
    TokenSource,
    require_secure,
)

try:
    import aiohttp
    import socketio
except ImportError as missing:
    raise ImportError("transport_adapters.socketio needs python-socketio: install 'e2ee-layer[client]'") from missing

NAMESPACE: Final = "/e2ee"
CLOSE_TIMEOUT: Final = 2
"""Seconds that a server has to answer the closing handshake."""
MAX_MESSAGE: Final = 1024 * 1024
"""Largest WebSocket message taken from a server, in bytes."""

_silent = logging.getLogger("transport_adapters.socketio.silent")
_silent.disabled = True  # whatever level the application sets on its loggers


@final
@dataclass(frozen=True, slots=True)
class SocketIoOptions:
    """Where the server mounts Socket.IO, and how to reach it. `tls` replaces the system's certificate store."""

    path: str = "socket.io"
    namespace: str = NAMESPACE
    tls: ssl.SSLContext | None = None
    link: LinkOptions = field(default_factory=LinkOptions)


@final
class SocketIoTransport(LinkTransport):
    """Implements `EnvelopeTransport` over Socket.IO.

    Raises:
        InsecureUrlError: a plaintext URL to a host that is not loopback.
        ValueError: not a URL.
    """

    def __init__(
        self, url: str, *, token: TokenSource, cursor: CursorSource, options: SocketIoOptions | None = None
    ) -> None:
        require_secure(url)
        self._url = url
        self._options = options or SocketIoOptions()
        super().__init__(Link(self._dial, token, cursor, self._options.link))

    async def _dial(self, receiver: Receiver) -> "_SocketIoWire":
        wire = _SocketIoWire(self._options, receiver)
        try:
            await wire.connect(self._url)
        except BaseException:
            await wire.close()
            raise
        return wire


@final
class _SocketIoWire:
    """One connection. Made new for every attempt, so nothing of an old one is left in it."""

    def __init__(self, options: SocketIoOptions, receiver: Receiver) -> None:
        self._options = options
        self._writing = asyncio.Lock()
        self._http = _Http(options.tls, options.link.silence_timeout, receiver)
        self._client = socketio.AsyncClient(
            reconnection=False,
            logger=_silent,
            engineio_logger=_silent,
            handle_sigint=False,
            http_session=self._http,
            request_timeout=CLOSE_TIMEOUT,
            websocket_extra_options={"max_msg_size": MAX_MESSAGE},
        )
        for event in SERVER_EVENTS:
            self._client.on(event, _taking(event, receiver), namespace=options.namespace)
        self._client.on("disconnect", lambda *_: receiver.lost(), namespace=options.namespace)

    async def connect(self, url: str) -> None:
        options = self._options
        try:
            await self._client.connect(
                url,
                transports=["websocket"],
                namespaces=[options.namespace],
                socketio_path=options.path,
                wait_timeout=options.link.connect_timeout,
            )
        except (socketio.exceptions.ConnectionError, aiohttp.ClientError) as error:
            raise OSError("Socket.IO connection failed") from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            # What the library does with an answer that is not Engine.IO.
            raise OSError("the server does not speak Socket.IO") from error

    async def write(self, frame: ClientFrame) -> None:
        # One at a time: an event and its binary attachment are several packets.
        async with self._writing:
            try:
                await self._client.emit(frame.EVENT, frame.to_fields(), namespace=self._options.namespace)
            except socketio.exceptions.SocketIOError as error:
                raise OSError("the Socket.IO connection is gone") from error

    async def close(self) -> None:
        try:
            async with asyncio.timeout(self._options.link.connect_timeout):
                await self._client.disconnect()
        except (OSError, TimeoutError, aiohttp.ClientError, socketio.exceptions.SocketIOError):
            pass  # it was gone already
        await self._http.close()


@final
class _Http:
    """What the library opens its WebSocket with. It does not close one on which the handshake failed: this does."""

    def __init__(self, tls: ssl.SSLContext | None, patience: float, receiver: Receiver) -> None:
        connector = aiohttp.TCPConnector(ssl=tls or True)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._patience = patience
        self._receiver = receiver
        self._socket: _Watched | None = None

    @property
    def closed(self) -> bool:
        return self._session.closed

    async def ws_connect(self, url: str, **options: Any) -> "_Watched":
        socket = await self._session.ws_connect(url, **options)
        self._socket = _Watched(socket, self._patience, self._receiver)
        return self._socket

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        await self._session.close()


@final
class _Watched:
    """The WebSocket as the library uses it, given up when nothing comes: Engine.IO's server pings.

    The library has a watch of its own, as patient as the server says; and then it waits until its writer is done, which
    on a dead connection with a full buffer is never.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, patience: float, receiver: Receiver) -> None:
        self._socket = socket
        self._patience = patience
        self._receiver = receiver
        self.send_str = socket.send_str
        self.send_bytes = socket.send_bytes
        self.close = socket.close

    async def receive(self) -> aiohttp.WSMessage:
        try:
            async with asyncio.timeout(self._patience):
                return await self._socket.receive()
        except TimeoutError:
            self._receiver.lost(silent=True)
            raise


def _taking(event: str, receiver: Receiver) -> Callable[..., None]:
    def take(*fields: object) -> None:
        receiver.frame(event, fields[0] if len(fields) == 1 else None)

    return take
