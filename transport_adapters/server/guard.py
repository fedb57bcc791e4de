"""An ASGI wrapper around Socket.IO: the way in for everything that Engine.IO is asked.

Owns: which requests belong to a session; that a session has one raw socket; how fast one may POST.
Does not know about: frames, what Socket.IO packets say; how a socket is watched and cut (raw_sockets.py). What is not
of Engine.IO passes through untouched.
"""

import asyncio
from typing import Final, final
from urllib.parse import parse_qs

from transport_adapters.codes import CloseCode
from transport_adapters.server.raw_sockets import (
    AsgiApp,
    Engine,
    RawSocket,
    RawSockets,
    Receive,
    Scope,
    Send,
    sockets_of,
)
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import RelaySettings

__all__ = ["MAX_BACKLOG", "AsgiApp", "guard", "is_guarded"]

MAX_BACKLOG: Final = 32
"""Packets that wait for a peer on long-polling; from then on it is not heard. One POST causes at most 16 more."""
_POLL: Final = 0.05
"""Seconds between looks at a backlog."""
_MARK: Final = "e2ee_layer.guarded"


def guard(asgi_app: AsgiApp, relay: Relay) -> AsgiApp:
    """Wrap the application that serves Socket.IO. Put it outermost, next to the server."""
    return _Guard(asgi_app, sockets_of(relay), relay.settings)


def is_guarded(scope: Scope) -> bool:
    """Say whether a request came through a guard."""
    return _MARK in scope


@final
class _Guard:
    def __init__(self, app: AsgiApp, sockets: RawSockets, settings: RelaySettings) -> None:
        self._app = app
        self._sockets = sockets
        self._settings = settings
        self._posting: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_MARK] = True
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        engine_id = query.get("sid", [""])[0]
        engine = self._sockets.engine_of(engine_id)
        # Not by "transport": Engine.IO reads the first of several, and none at all once there is a session.
        if scope["type"] == "websocket" and ("EIO" in query or engine is not None):
            await self._socket(engine_id, scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST" and engine is not None:
            await self._post(engine, engine_id, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _socket(self, engine_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        if self._sockets.find(engine_id) is not None:
            # Two sockets could both finish an upgrade, and one that holds up writes would hide behind the other.
            await send({"type": "websocket.close", "code": int(CloseCode.REPLACED)})
            return
        socket = RawSocket(receive, send, self._sockets, self._settings.hello_timeout)
        if engine_id:
            socket.belongs_to(engine_id)
        try:
            await self._app(scope, socket.receive, socket.send)
        finally:
            await socket.finish()

    async def _post(self, engine: Engine, engine_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one POST of a session at a time, and none while its sender leaves too much unread."""
        if _declared_length(scope) > engine.max_post:
            # Engine.IO would wait for a peer to read that it is refused, and perhaps for ever.
            await engine.end(engine_id)
            await _refuse(send, 413)
            return
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                while self._must_wait(engine, engine_id):  # noqa: ASYNC110 - a queue tells nobody when it moves
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            await engine.end(engine_id)
            await _refuse(send, 429)
            return
        # On long-polling a pong is the body of a POST, or part of one; and whoever posts is there.
        self._sockets.alive(engine_id)
        self._posting.add(engine_id)
        try:
            await self._app(scope, receive, send)
        finally:
            self._posting.discard(engine_id)

    def _must_wait(self, engine: Engine, engine_id: str) -> bool:
        return engine_id in self._posting or engine.backlog(engine_id) >= MAX_BACKLOG


def _declared_length(scope: Scope) -> int:
    text = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
