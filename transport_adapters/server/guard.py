"""An ASGI wrapper that sees the raw WebSocket under Engine.IO, and can cut it.

Owns: one mark per raw socket: which namespaces it carries, when it was last heard, whether a write is stuck.
Does not know about: frames. Everything that is not an Engine.IO WebSocket passes through untouched.

Engine.IO closes cooperatively: a socket whose namespaces are all gone, or that never joined one, stays open as long as
its peer likes. The wrapper ends such sockets, and those that the relay's endpoint tells it to.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar, final
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

from transport_adapters.frames import CloseCode
from transport_adapters.server.relay import Relay

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SCOPE_KEY: Final = "e2ee_layer.raw_socket"
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a closing handshake may be held up by a peer that does not read."""


def guard(asgi_app: AsgiApp, relay: Relay) -> AsgiApp:
    """Wrap the application that serves Socket.IO. Put it outermost, next to the server."""
    return _Guard(asgi_app, relay)


def raw_socket(relay: Relay, scope: MutableMapping[str, Any], engine_id: str) -> "RawSocket | None":
    """Find the raw socket of an Engine.IO session: the one it began with, or the one it was upgraded to."""
    began_with = scope.get(SCOPE_KEY)
    if isinstance(began_with, RawSocket):
        return began_with
    return _upgraded.get(relay, {}).get(engine_id)


def is_guarded(scope: MutableMapping[str, Any]) -> bool:
    """Say whether a request came through a guard."""
    return SCOPE_KEY in scope


_upgraded: "WeakKeyDictionary[Relay, dict[str, RawSocket]]" = WeakKeyDictionary()


@final
class _Guard:
    def __init__(self, app: AsgiApp, relay: Relay) -> None:
        self._app = app
        self._relay = relay
        self._sockets = _upgraded.setdefault(relay, {})

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[SCOPE_KEY] = None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1")) if scope["type"] == "websocket" else {}
        if "EIO" not in query or query.get("transport") != ["websocket"]:
            await self._app(scope, receive, send)
            return
        socket = RawSocket(receive, send, self._relay.settings.hello_timeout)
        scope[SCOPE_KEY] = socket
        engine_id = query.get("sid", [""])[0]
        if engine_id:
            self._sockets[engine_id] = socket
        try:
            await self._app(scope, socket.receive, socket.send)
        finally:
            if self._sockets.get(engine_id) is socket:
                del self._sockets[engine_id]
            await socket.finish()


class _Cut(OSError):
    """The socket was cut."""


@final
class RawSocket:
    """One Engine.IO WebSocket, between the server and the application."""

    def __init__(self, receive: Receive, send: Send, patience: float) -> None:
        self._receive = receive
        self._send = send
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._busy: set[asyncio.Task[Any]] = set()
        self._sending = 0
        self._sent = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._asked: set[str] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self.namespaces: set[str] = set()
        """Socket.IO namespaces joined at present."""
        self.last_heard = self._loop.time()
        """When the peer last sent anything, by the event loop's clock: a pong comes every ping interval."""
        self._watch()

    @property
    def writing(self) -> bool:
        """True while the peer holds up a write."""
        return self._sending > 0

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
        """The application's `receive`."""
        try:
            message = await self._interruptible(self._receive)
        except _Cut:
            return {"type": "websocket.disconnect", "code": 1006}
        self.last_heard = self._loop.time()
        text = message.get("text")
        if text and text.startswith("4"):
            self._heard(text)
        return message

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        text = message.get("text")
        if text and text.startswith("4"):
            self._said(text)
        self._sending += 1
        try:
            await self._interruptible(lambda: self._send(message))
        finally:
            self._sending -= 1
            self._sent.set()

    async def finish(self) -> None:
        """The application is done with the socket."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._sent.set()
        if self._closing is not None:
            await asyncio.wait([self._closing])

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

    def _heard(self, text: str) -> None:
        if text.startswith("40"):
            self._asked.add(_namespace(text))
        elif text.startswith("41"):
            self._left(_namespace(text))

    def _said(self, text: str) -> None:
        namespace = _namespace(text)
        if text.startswith("40"):
            self._asked.discard(namespace)
            self.namespaces.add(namespace)
        elif text.startswith("44"):
            self._asked.discard(namespace)
        elif text.startswith("41"):
            self._left(namespace)

    def _left(self, namespace: str) -> None:
        self.namespaces.discard(namespace)
        if not self.namespaces:
            self._watch()

    def _watch(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._patience, self._overdue)

    def _overdue(self) -> None:
        self._deadline = None
        if self._asked and not self.namespaces:
            self._watch()  # the application still thinks about it
        elif not self.namespaces:
            self.cut(CloseCode.HELLO_TIMEOUT)


def _namespace(text: str) -> str:
    """The namespace of a Socket.IO packet `4<type>[/namespace[?query]][,payload]`."""
    name = text[2:].partition(",")[0].partition("?")[0]
    return name if name.startswith("/") else "/"
