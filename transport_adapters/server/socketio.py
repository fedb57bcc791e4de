"""Socket.IO, server side: a namespace on the application's own server.

Owns: the way of frames over a python-socketio server, what the server's settings must be.
Does not know about: what frames mean; the application's other namespaces, which stay as they are.

The library queues without bound and never says that something was written. So a frame counts as sent once little is
left in the queue of its Engine.IO session, and, with `guard`, in the raw socket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final
from weakref import WeakKeyDictionary

import socketio

from e2ee.limits import MAX_ENVELOPE
from transport_adapters.codes import CloseCode
from transport_adapters.frames import CLIENT_EVENTS, ServerFrame
from transport_adapters.server.channel import frame_size
from transport_adapters.server.connection import Connection
from transport_adapters.server.guard import is_guarded
from transport_adapters.server.packets import PacketGate
from transport_adapters.server.raw_sockets import RawSocket, sockets_of
from transport_adapters.server.relay import Relay

_logger = logging.getLogger(__name__)

TakeMessage = Callable[[str, object], Awaitable[None]]

NAMESPACE: Final = "/e2ee"
HIGH_WATER: Final = 32 * 1024
"""Bytes handed to the library before waiting until it has written them."""
FLUSH_TIMEOUT: Final = 1.0
MAX_PING_INTERVAL: Final = 15
MIN_BUFFER: Final = MAX_ENVELOPE + 32 * 1024
_POLL: Final = 0.05
"""Seconds between looks at a queue that tells nobody when it moves (long-polling, or no `guard`)."""


def attach(sio: socketio.AsyncServer, relay: Relay, namespace: str = NAMESPACE) -> None:
    """Put the relay's namespace on a Socket.IO server. Wrap the ASGI application in `guard` as well.

    Logs a warning for each setting of the server that does not suit.
    """
    _check_settings(sio)
    endpoint = _Endpoint(sio, relay, namespace)
    sockets_of(relay).add_engine(endpoint)
    sio.eio.on("message", endpoint.gated(sio.eio.handlers["message"]))
    sio.on("connect", endpoint.connect, namespace=namespace)
    sio.on("disconnect", endpoint.disconnect, namespace=namespace)
    for event in CLIENT_EVENTS:
        sio.on(event, endpoint.handler(event), namespace=namespace)
    # Whatever else comes is a bad frame of ours, and no business of a catch-all handler of the application.
    sio.on("*", endpoint.unknown, namespace=namespace)


@final
class _Endpoint:
    """The namespace of one server."""

    def __init__(self, sio: socketio.AsyncServer, relay: Relay, namespace: str) -> None:
        self.sio = sio
        self.relay = relay
        self.namespace = namespace
        self._connections: dict[str, Connection] = {}
        self._gates: WeakKeyDictionary[object, PacketGate] = WeakKeyDictionary()
        self._checked = False

    def connect(self, sid: str, environ: dict[str, Any], _auth: object = None) -> None:
        if not self._checked:
            self._checked = True
            _check_server(environ.get("asgi.scope", {}))
        self._connections[sid] = self.relay.connect(SocketIoChannel(self, sid))

    def disconnect(self, sid: str, _reason: object = None) -> None:
        connection = self._connections.pop(sid, None)
        if connection is not None:
            connection.disconnected()

    def handler(self, event: str) -> Callable[..., None]:
        def take(sid: str, *fields: object) -> None:
            self._take(event, sid, fields)

        return take

    def unknown(self, event: object, sid: str, *fields: object) -> None:
        self._take(event, sid, fields)

    def gated(self, library: TakeMessage) -> TakeMessage:
        """Put the gate before the library's own handler of Engine.IO messages."""

        async def take(engine_id: str, data: object) -> None:
            session = self.sio.eio.sockets.get(engine_id)
            if session is None or session.closed:
                return
            if session not in self._gates:
                self._gates[session] = PacketGate(self.namespace, self.sio.packet_class)
            if self._gates[session].admits(data):
                await library(engine_id, data)
            else:
                await self.end(engine_id)

        return take

    # --- what the guard asks (raw_sockets.Engine)

    @property
    def max_post(self) -> int:
        limit: int = self.sio.eio.max_http_buffer_size
        return limit

    def knows(self, engine_id: str) -> bool:
        return engine_id in self.sio.eio.sockets

    def carries(self, engine_id: str) -> set[str]:
        manager = self.sio.manager
        return {name for name in list(manager.get_namespaces()) if manager.sid_from_eio_sid(engine_id, name)}

    def is_upgraded(self, engine_id: str) -> bool:
        session = self.sio.eio.sockets.get(engine_id)
        return session is not None and session.upgraded

    def backlog(self, engine_id: str) -> int:
        session = self.sio.eio.sockets.get(engine_id)
        return 0 if session is None else session.queue.qsize()

    def alive(self, engine_id: str) -> None:
        sid = self.sio.manager.sid_from_eio_sid(engine_id, self.namespace)
        connection = self._connections.get(sid) if sid is not None else None
        if connection is not None:
            connection.alive()

    async def end(self, engine_id: str) -> None:
        raw = sockets_of(self.relay).find(engine_id)
        session = self.sio.eio.sockets.pop(engine_id, None)
        if session is not None:
            # Not `eio.disconnect`, which waits until the peer has read everything.
            await session.close(wait=False, reason=self.sio.reason.SERVER_DISCONNECT)
        if raw is not None:
            raw.cut(CloseCode.TOO_FAST_OR_SLOW)

    def _take(self, event: object, sid: str, fields: tuple[object, ...]) -> None:
        connection = self._connections.get(sid)
        if connection is not None:
            connection.receive(event, fields[0] if len(fields) == 1 else None)


@final
class SocketIoChannel:
    """One client's namespace, as the relay writes to it."""

    def __init__(self, endpoint: _Endpoint, sid: str) -> None:
        self._endpoint = endpoint
        self._sio = endpoint.sio
        self._namespace = endpoint.namespace
        self._sid = sid
        self._engine_id: str = self._sio.manager.eio_sid_from_sid(sid, self._namespace)
        self._outstanding = 0

    async def send(self, frame: ServerFrame) -> None:
        # ignore_queue: with a message queue between nodes, this would go around through it.
        await self._sio.emit(frame.EVENT, frame.to_fields(), to=self._sid, namespace=self._namespace, ignore_queue=True)
        self._outstanding += frame_size(frame)
        if self._outstanding > HIGH_WATER:
            await self._written()

    async def close(self, code: CloseCode) -> None:
        raw = self._raw()
        if raw is not None and self._endpoint.carries(self._engine_id) <= {self._namespace}:
            try:
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    await self._written()
            except (TimeoutError, OSError):
                pass  # it will not hear why
            raw.cut(code)
        await self._sio.disconnect(self._sid, namespace=self._namespace, ignore_queue=True)

    async def _written(self) -> None:
        """Wait until the library and the server hold nothing more of this connection."""
        while True:
            session = self._sio.eio.sockets.get(self._engine_id)
            if session is None or session.closed:
                raise OSError("the Engine.IO session is gone")
            raw = self._raw()
            if session.queue.empty() and (raw is None or not raw.writing):
                self._outstanding = 0
                return
            await (asyncio.sleep(_POLL) if raw is None else raw.progress())

    def _raw(self) -> RawSocket | None:
        return sockets_of(self._endpoint.relay).find(self._engine_id)


def _check_settings(sio: socketio.AsyncServer) -> None:
    engine = sio.eio
    if engine.ping_interval > MAX_PING_INTERVAL:
        _logger.warning("ping_interval is %s s: presence needs at most %s s", engine.ping_interval, MAX_PING_INTERVAL)
    if engine.max_http_buffer_size < MIN_BUFFER:
        _logger.warning(
            "max_http_buffer_size is %s: envelopes need at least %s bytes", engine.max_http_buffer_size, MIN_BUFFER
        )
    if engine.logger.isEnabledFor(logging.INFO) or sio.logger.isEnabledFor(logging.INFO):
        _logger.warning("logger or engineio_logger is on: at this level they print device tokens")


def _check_server(scope: MutableMapping[str, Any]) -> None:
    """Judge what is known only when somebody connects."""
    if not is_guarded(scope):
        _logger.warning("The ASGI application is not wrapped in guard(app, relay): sockets cannot be cut")
    if any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in ("uvicorn.error", "websockets.server")):
        _logger.warning("The server's log level is DEBUG: it prints parts of frames")
