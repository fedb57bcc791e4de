"""An ASGI wrapper that sees the raw WebSocket under Engine.IO, and can cut it.

Owns: the raw sockets by Engine.IO session: when each was last heard, whether a write is stuck, when it must end.
Does not know about: frames, Socket.IO packets. Everything that is not an Engine.IO WebSocket passes through untouched.

Engine.IO closes cooperatively: a socket whose namespaces are all gone, or that never joined one, stays open as long as
its peer likes. The wrapper ends such sockets, and those that the relay's endpoint tells it to. Which namespaces a
session carries it asks the endpoint: a client may have joined them over long-polling, before it had this socket.

Nor does Engine.IO bound what it queues. So a peer that does not read is not heard either.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final, TypeVar, final
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

from transport_adapters.frames import CloseCode
from transport_adapters.server.relay import Relay

T = TypeVar("T")
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Carries = Callable[[str], Collection[str] | None]
"""Says which namespaces an Engine.IO session carries or is joining; None if it is another server's."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a closing handshake may be held up by a peer that does not read."""
_MARK: Final = "e2ee_layer.guarded"


def guard(asgi_app: AsgiApp, relay: Relay) -> AsgiApp:
    """Wrap the application that serves Socket.IO. Put it outermost, next to the server."""
    return _Guard(asgi_app, sockets_of(relay), relay.settings.hello_timeout)


def is_guarded(scope: Scope) -> bool:
    """Say whether a request came through a guard."""
    return _MARK in scope


def sockets_of(relay: Relay) -> "RawSockets":
    """The raw sockets that the guards of this relay see."""
    return _by_relay.setdefault(relay, RawSockets())


@final
class RawSockets:
    """The raw sockets of one relay, by Engine.IO session."""

    def __init__(self) -> None:
        self._sockets: dict[str, RawSocket] = {}
        self._endpoints: list[Carries] = []

    def add_endpoint(self, carries: Carries) -> None:
        """Take note of a Socket.IO server that the relay is attached to."""
        self._endpoints.append(carries)

    def find(self, engine_id: str) -> "RawSocket | None":
        """Find the raw socket of a session, if it has one that came through a guard."""
        return self._sockets.get(engine_id)

    def put(self, engine_id: str, socket: "RawSocket") -> None:
        """Take note of a session's socket. A second one that claims the same session changes nothing."""
        self._sockets.setdefault(engine_id, socket)

    def drop(self, engine_id: str, socket: "RawSocket") -> None:
        """Forget a socket that has ended."""
        if self._sockets.get(engine_id) is socket:
            del self._sockets[engine_id]

    def is_idle(self, engine_id: str) -> bool:
        """Say whether a session is of a server that we know, and carries nothing."""
        found = [names for carries in self._endpoints if (names := carries(engine_id)) is not None]
        return bool(found) and not any(found)


_by_relay: "WeakKeyDictionary[Relay, RawSockets]" = WeakKeyDictionary()


@final
class _Guard:
    def __init__(self, app: AsgiApp, sockets: RawSockets, patience: float) -> None:
        self._app = app
        self._sockets = sockets
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_MARK] = True
        query = parse_qs(scope.get("query_string", b"").decode("latin-1")) if scope["type"] == "websocket" else {}
        if "EIO" not in query or query.get("transport") != ["websocket"]:
            await self._app(scope, receive, send)
            return
        socket = RawSocket(receive, send, self._sockets, self._patience)
        if "sid" in query:
            socket.belongs_to(query["sid"][0])
        try:
            await self._app(scope, socket.receive, socket.send)
        finally:
            await socket.finish()


@final
class RawSocket:
    """One Engine.IO WebSocket, between the server and the application."""

    def __init__(self, receive: Receive, send: Send, sockets: RawSockets, patience: float) -> None:
        self._receive = receive
        self._send = send
        self._sockets = sockets
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._engine_id = ""
        self._busy: set[asyncio.Task[Any]] = set()
        self._sending = 0
        self._sent = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._was_idle = True
        self._look = self._loop.call_later(patience, self._look_again)
        self.last_heard = self._loop.time()
        """When the peer last sent anything, by the event loop's clock: a pong comes every ping interval."""

    @property
    def writing(self) -> bool:
        """True while the peer holds up a write."""
        return self._sending > 0

    def belongs_to(self, engine_id: str) -> None:
        """Take note of the Engine.IO session that this socket carries."""
        self._engine_id = engine_id
        self._sockets.put(engine_id, self)

    async def progress(self) -> None:
        """Wait until a write has gone through."""
        self._sent.clear()
        await self._sent.wait()

    def cut(self, code: CloseCode) -> None:
        """End the socket now, whether or not the application or the peer cooperates. Idempotent."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(code))
            for task in self._busy:
                task.cancel()

    async def receive(self) -> Message:
        """The application's `receive`. While the peer holds up a write, it is heard once per write that goes through.

        Socket.IO answers much by itself (acknowledgements, refused namespaces) and queues without bound: a peer that
        sent on and never read would fill the memory.
        """
        try:
            message = await self._interruptible(self._receive_in_turn)
        except _Cut:
            return {"type": "websocket.disconnect", "code": 1006}
        self.last_heard = self._loop.time()
        return message

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if not self._engine_id:
            self._learn_session(message.get("text"))
        self._sending += 1
        try:
            await self._interruptible(lambda: self._send(message))
        finally:
            self._sending -= 1
            self._sent.set()

    async def finish(self) -> None:
        """The application is done with the socket."""
        self._look.cancel()
        self._sockets.drop(self._engine_id, self)
        self._sent.set()
        if self._closing is not None:
            await asyncio.wait([self._closing])

    async def _receive_in_turn(self) -> Message:
        if self.writing:
            await self.progress()
        return await self._receive()

    async def _interruptible(self, call: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        if task is None or self._closing is not None:
            raise _Cut
        self._busy.add(task)
        try:
            return await call()
        except asyncio.CancelledError:
            # Ours, if nobody else cancelled the task as well.
            if self._closing is None or task.uncancel() > 0:
                raise
            raise _Cut from None
        finally:
            self._busy.discard(task)

    async def _close(self, code: CloseCode) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._send({"type": "websocket.close", "code": int(code)})
        except Exception:  # noqa: BLE001, S110 - a server's own errors for "gone already"; that is what was wanted
            pass

    def _learn_session(self, text: object) -> None:
        """The server's first packet names the session: `0{"sid": ...}`."""
        if isinstance(text, str) and text.startswith("0"):
            try:
                self.belongs_to(str(json.loads(text[1:])["sid"]))
            except (ValueError, KeyError, TypeError):
                pass  # not Engine.IO after all

    def _look_again(self) -> None:
        """Cut the socket if it carries nothing, and carried nothing when last looked at."""
        is_idle = self._sockets.is_idle(self._engine_id)
        if is_idle and self._was_idle:
            self.cut(CloseCode.HELLO_TIMEOUT)
            return
        self._was_idle = is_idle
        self._look = self._loop.call_later(self._patience, self._look_again)


class _Cut(OSError):
    """The socket was cut."""
