"""The raw WebSockets under Engine.IO, and how they are cut.

Owns: the raw sockets by Engine.IO session: when each was last heard, whether a write is stuck, when it must end.
Does not know about: HTTP requests, frames, what Socket.IO packets say.

Engine.IO closes cooperatively: a socket whose namespaces are all gone, or that never joined one, stays open as long as
its peer likes. Such sockets are ended here, and those that the relay's endpoint tells to. Which namespaces a session
carries is asked of the endpoint: a client may have joined them over long-polling, before it had this socket.

Nor does Engine.IO bound what it queues. So a peer that does not read is not heard either.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final, Protocol, TypeVar, final
from weakref import WeakKeyDictionary

from transport_adapters.codes import CloseCode
from transport_adapters.server.packets import is_engine_packet
from transport_adapters.server.relay import Relay

T = TypeVar("T")
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a closing handshake may be held up by a peer that does not read."""


class Engine(Protocol):
    """The sessions of one Socket.IO server, as the guard asks about them."""

    @property
    def max_post(self) -> int:
        """The server's own limit on a request's body."""
        ...

    def knows(self, engine_id: str) -> bool:
        """Say whether there is such a session."""
        ...

    def carries(self, engine_id: str) -> Collection[str]:
        """Name the namespaces that the session carries or is joining."""
        ...

    def is_upgraded(self, engine_id: str) -> bool:
        """Say whether the session's packets go over a WebSocket."""
        ...

    def backlog(self, engine_id: str) -> int:
        """Count the packets that wait for the peer."""
        ...

    def alive(self, engine_id: str) -> None:
        """Note a sign of life of the session's peer; not every server has such a session."""
        ...

    async def end(self, engine_id: str) -> None:
        """End the session, whatever carries it."""
        ...


def sockets_of(relay: Relay) -> "RawSockets":
    """The raw sockets that the guards of this relay see."""
    return _by_relay.setdefault(relay, RawSockets())


@final
class RawSockets:
    """The raw sockets of one relay, by Engine.IO session."""

    def __init__(self) -> None:
        self._sockets: dict[str, RawSocket] = {}
        self._engines: list[Engine] = []

    def add_engine(self, engine: Engine) -> None:
        """Take note of a Socket.IO server that the relay is attached to."""
        self._engines.append(engine)

    def engine_of(self, engine_id: str) -> Engine | None:
        """Find the server of a session; None if it is another server's, or over."""
        return next((engine for engine in self._engines if engine.knows(engine_id)), None)

    def alive(self, engine_id: str) -> None:
        """Note a sign of life of a session's peer, for every connection that the session carries."""
        for engine in self._engines:
            engine.alive(engine_id)

    def find(self, engine_id: str) -> "RawSocket | None":
        """Find the raw socket of a session, if it has one that came through a guard."""
        return self._sockets.get(engine_id)

    def put(self, engine_id: str, socket: "RawSocket") -> None:
        """Take note of a session's socket."""
        self._sockets[engine_id] = socket

    def drop(self, engine_id: str, socket: "RawSocket") -> None:
        """Forget a socket that has ended."""
        if self._sockets.get(engine_id) is socket:
            del self._sockets[engine_id]


_by_relay: "WeakKeyDictionary[Relay, RawSockets]" = WeakKeyDictionary()


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
        self._is_ours = False
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
        self._is_ours = self._sockets.engine_of(engine_id) is not None
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
            return _GONE
        self.last_heard = self._loop.time()
        text = message.get("text")
        if isinstance(text, str) and not is_engine_packet(text):
            self.cut(CloseCode.TOO_FAST_OR_SLOW)
            return _GONE
        if text == _PONG:
            self._sockets.alive(self._engine_id)
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
        is_idle = self._is_idle()
        if is_idle and self._was_idle:
            self.cut(CloseCode.TIMEOUT)
            return
        self._was_idle = is_idle
        self._look = self._loop.call_later(self._patience, self._look_again)

    def _is_idle(self) -> bool:
        """Say whether its session carries nothing, does not use it (an upgrade that was never finished), or is over."""
        if not self._is_ours:
            return False
        engine = self._sockets.engine_of(self._engine_id)
        return engine is None or not engine.is_upgraded(self._engine_id) or not engine.carries(self._engine_id)


class _Cut(OSError):
    """The socket was cut."""


_PONG: Final = "3"
_GONE: Final[Message] = {"type": "websocket.disconnect", "code": 1006}
