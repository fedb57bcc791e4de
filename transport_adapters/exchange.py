"""One connection of a client: `hello` and its answer, which answer belongs to which send, credit, token refresh.

Owns: what is under way on this connection, the client's window.
Does not know about: other connections and reconnecting (link.py), sockets and libraries.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, assert_never, final, runtime_checkable

from e2ee.errors import E2EEError
from e2ee.wire.identifiers import EnvelopeId
from transport_adapters.base import (
    Accepted,
    Cursor,
    Delivery,
    Incoming,
    PresenceSeen,
    SendResult,
    TransportRefusedError,
    TransportUnavailableError,
    TypingSeen,
)
from transport_adapters.codes import ErrorCode
from transport_adapters.frames import (
    ClientFrame,
    Credit,
    Deliver,
    Error,
    Ping,
    Pong,
    PresenceReport,
    Refresh,
    Sent,
    ServerFrame,
    Typing,
    Welcome,
    parse_server_frame,
)
from transport_adapters.received import connected, delivered, refused

_logger = logging.getLogger(__name__)

TokenSource = Callable[[], Awaitable[str]]
"""Returns a device token; called again whenever the server does not take the last one any more."""


@runtime_checkable
class RenewableToken(Protocol):
    """A token source that keeps its token, and must be told when the server refused it."""

    async def __call__(self) -> str:
        """Return a device token."""
        ...

    def refused(self) -> None:
        """Do not give this token out again."""
        ...


CursorSource = Callable[[], Awaitable[Cursor]]
"""Returns how far the store has come; called before every `hello`."""


class Wire(Protocol):
    """One connection, made by an adapter."""

    async def write(self, frame: ClientFrame) -> None:
        """Send a frame; frames go out in the order of the calls.

        Raises:
            OSError: the connection is gone.
        """
        ...

    async def close(self) -> None:
        """End the connection. Never raises."""
        ...


class Receiver(Protocol):
    """Where an adapter puts what arrives on one connection."""

    def frame(self, event: object, fields: object) -> None:
        """Take a frame as it came."""
        ...

    def lost(self, *, silent: bool = False) -> None:
        """The connection has ended; `silent`: it is given up, because nothing has come for too long."""
        ...


@final
@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Times in seconds, sizes in bytes."""

    credit_messages: int = 64
    credit_bytes: int = 256 * 1024
    max_unanswered: int = 64
    """Sends under way at once; more wait. The server's own bound is higher."""
    max_unanswered_bytes: int = 512 * 1024
    connect_timeout: float = 10.0
    hello_timeout: float = 10.0
    answer_timeout: float = 30.0
    """A send that the server has not answered by then ends the connection; the next one sends the same bytes."""
    silence_timeout: float = 40.0
    """A connection on which nothing comes for so long is given up; the server's heartbeat is every 15 seconds."""
    first_backoff: float = 1.0
    max_backoff: float = 30.0
    jitter: Callable[[], float] = random.SystemRandom().random

    def backoff(self, failures: int) -> float:
        """Return the wait before the next attempt, after so many failures in a row: full jitter."""
        return self.jitter() * min(self.max_backoff, self.first_backoff * 2.0 ** min(failures, 16))


Dial = Callable[[Receiver], Awaitable[Wire]]
"""Makes one connection. Raises OSError (TimeoutError included) if that fails."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One way to the server: how to dial, what `hello` needs, and the patience that this transport takes."""

    dial: Dial
    token: TokenSource
    cursor: CursorSource
    options: LinkOptions


@final
class Exchange:
    """What goes on over one wire. What arrives after its end is ignored."""

    def __init__(self, route: Route, arrive: Callable[["Exchange", Incoming], None]) -> None:
        self.route = route
        options = self._options = route.options
        self._arrive = arrive
        self.wire: Wire | None = None
        self.number = 0
        """Of the connection, once `hello` was said."""
        self.welcomed = False
        self.silent = False
        """Whether it was given up because nothing came."""
        self.answered = asyncio.Event()
        """Set when `hello` was answered, or the connection ended instead."""
        self.ended = asyncio.Event()
        self.refusal: TransportRefusedError | None = None
        self.unanswered: dict[EnvelopeId, asyncio.Future[SendResult]] = {}
        self._sizes: dict[EnvelopeId, int] = {}
        self._deadlines: dict[EnvelopeId, asyncio.TimerHandle] = {}
        self._room = asyncio.Event()
        self._taken_messages = 0
        self._taken_bytes = 0
        self._credit_messages = options.credit_messages
        self._credit_bytes = options.credit_bytes
        self._refreshing: asyncio.Task[None] | None = None
        self._pong: asyncio.Task[None] | None = None

    def frame(self, event: object, fields: object) -> None:
        """Take a frame off the wire."""
        if self.ended.is_set():
            return
        try:
            frame = parse_server_frame(event, fields)
        except E2EEError as error:
            _logger.warning("The server sent a frame that does not parse: %s", error.code)
            self.lost()
            return
        self._take(frame)

    def lost(self, *, silent: bool = False) -> None:
        """The connection has ended: everything that waits for it learns so."""
        if self.ended.is_set():
            return
        self.silent = silent
        self.ended.set()
        self.answered.set()
        self._room.set()
        for deadline in self._deadlines.values():
            deadline.cancel()
        error = TransportUnavailableError("the connection ended")
        for answer in self.unanswered.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # retrieved, in case its caller has been cancelled

    async def write(self, frame: ClientFrame) -> None:
        """Send a frame; on a connection that ended, nothing happens, and `lost` has told everybody."""
        if self.wire is None or self.ended.is_set():
            return
        try:
            await self.wire.write(frame)
        except OSError:
            self.lost()

    async def close(self) -> None:
        """Release the connection."""
        self.lost()
        for task in (self._refreshing, self._pong):
            if task is not None:
                task.cancel()
        if self.wire is not None:
            await self.wire.close()

    async def until_room(self, size: int) -> None:
        """Wait until one more send fits under the bounds."""
        options = self._options
        while self.unanswered and not self.ended.is_set():
            held = sum(self._sizes.values())
            if len(self.unanswered) < options.max_unanswered and held + size <= options.max_unanswered_bytes:
                return
            self._room.clear()
            await self._room.wait()

    def expect(self, envelope_id: EnvelopeId, size: int) -> "asyncio.Future[SendResult]":
        """Make the future that the answer about this envelope completes."""
        if self.ended.is_set():
            raise TransportUnavailableError("the connection ended")
        answer: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        self.unanswered[envelope_id] = answer
        self._sizes[envelope_id] = size
        loop = asyncio.get_running_loop()
        self._deadlines[envelope_id] = loop.call_later(self._options.answer_timeout, self._overdue)
        return answer

    async def taken(self, delivery: Delivery) -> None:
        """Count what the application took; give the credit back a quarter of the window at a time."""
        self._taken_messages += 1
        self._taken_bytes += 0 if delivery.envelope is None else len(delivery.envelope)
        options = self._options
        if self._taken_messages * 4 >= options.credit_messages or self._taken_bytes * 4 >= options.credit_bytes:
            credit = Credit(self._taken_messages, self._taken_bytes)
            self._taken_messages = self._taken_bytes = 0
            self._credit_messages += credit.messages
            self._credit_bytes += credit.bytes
            await self.write(credit)

    def _take(self, frame: ServerFrame) -> None:
        match frame:
            case Welcome():
                if not self.welcomed:
                    self.welcomed = True
                    self.answered.set()
                    self._arrive(self, connected(frame))
            case Deliver():
                self._deliver(frame)
            case Sent(envelope_id, duplicate):
                self._answer(envelope_id, Accepted(envelope_id, duplicate))
            case PresenceReport(states):
                for user_id, state in states.items():
                    self._arrive(self, PresenceSeen(user_id, state))
            case Typing(user_id, active, conversation):
                self._arrive(self, TypingSeen(user_id, conversation, active))
            case Error(close_code=None):
                self._refused(frame)
            case Error():
                self._ended_by(frame)
            case Ping():
                if self._pong is None or self._pong.done():  # one answer at a time, however often it asks
                    self._pong = asyncio.get_running_loop().create_task(self.write(Pong()))
            case _:
                assert_never(frame)

    def _deliver(self, frame: Deliver) -> None:
        self._credit_messages -= 1
        self._credit_bytes -= 0 if frame.envelope is None else len(frame.envelope)
        if not self.welcomed or self._credit_messages < 0 or self._credit_bytes < 0:
            # What has arrived waits in memory: only as much as was asked for.
            _logger.warning("The server delivered more than it was allowed to")
            self.lost()
            return
        self._arrive(self, delivered(frame))

    def _answer(self, envelope_id: EnvelopeId, result: SendResult) -> None:
        answer = self.unanswered.pop(envelope_id, None)
        self._sizes.pop(envelope_id, None)
        if (deadline := self._deadlines.pop(envelope_id, None)) is not None:
            deadline.cancel()
        self._room.set()
        if answer is not None and not answer.done():
            answer.set_result(result)

    def _refused(self, error: Error) -> None:
        if error.envelope_id is not None:
            self._answer(error.envelope_id, refused(error, error.envelope_id))
        elif error.code is ErrorCode.TOKEN_EXPIRED and self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    def _overdue(self) -> None:
        _logger.warning("The server left a send unanswered")
        self.lost(silent=True)

    def _ended_by(self, error: Error) -> None:
        if error.close_code is not None and error.close_code.terminal:
            self.refusal = TransportRefusedError(error.code.value, int(error.close_code))
        token = self.route.token
        if error.code in (ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED) and isinstance(token, RenewableToken):
            token.refused()
        self.lost()

    async def _refresh(self) -> None:
        try:
            await self.write(Refresh(await self.route.token()))
        except Exception as error:  # noqa: BLE001 - of the application's callable; the connection ends and is made anew
            _logger.warning("No fresh device token: %s", type(error).__name__)
        finally:
            self._refreshing = None
