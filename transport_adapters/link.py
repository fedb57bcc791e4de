"""The client side of the frames, whatever carries them: one link that stays connected.

Owns: dialling and reconnecting, `hello` and token refresh, which answer belongs to which send, the client's credit.
Does not know about: sockets and libraries. An adapter brings a `dial` function and the frames' way over its wire.

Reconnecting goes on for ever, after random() * min(30 s, 1 s * 2^n): full jitter. A device token is renewed when the
server says that it expired; the server then waits 25 s. Deliveries the application has not taken when a connection
ends are dropped here: the server sends everything unacked again.
"""

import asyncio
import ipaddress
import logging
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final
from urllib.parse import urlsplit

from e2ee.errors import E2EEError
from e2ee.wire.identifiers import EnvelopeId
from transport_adapters.base import (
    Accepted,
    Connected,
    Cursor,
    Delivery,
    Incoming,
    InsecureUrlError,
    Outgoing,
    Refused,
    SendResult,
    SeqRange,
    TransportRefusedError,
    TransportUnavailableError,
)
from transport_adapters.fields import MAX_ACK_RANGES
from transport_adapters.frames import (
    Ack,
    ClientFrame,
    Credit,
    Deliver,
    Error,
    ErrorCode,
    Hello,
    InstanceId,
    Refresh,
    Send,
    Sent,
    ServerFrame,
    Welcome,
    parse_server_frame,
)

_logger = logging.getLogger(__name__)

TokenSource = Callable[[], Awaitable[str]]
"""Returns a device token; called again whenever the server does not take the last one any more."""
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

    def lost(self) -> None:
        """The connection has ended."""
        ...


Dial = Callable[[Receiver], Awaitable[Wire]]
"""Makes one connection. Raises OSError (TimeoutError included) if that fails."""


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
    first_backoff: float = 1.0
    max_backoff: float = 30.0
    jitter: Callable[[], float] = random.SystemRandom().random


def require_secure(url: str) -> None:
    """Refuse plaintext that leaves this machine.

    Raises:
        InsecureUrlError: http:// or ws:// to a host that is not loopback.
        ValueError: not an http, https, ws or wss URL with a host.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https", "ws", "wss") or not host:
        raise ValueError("a URL begins with https:// or wss:// and names a host")
    if parts.scheme in ("https", "wss") or host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InsecureUrlError(parts.scheme)


@final
class Link:
    """A transport (see `EnvelopeTransport`) over connections that `dial` makes."""

    def __init__(self, dial: Dial, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> None:
        self._dial = dial
        self._token = token
        self._cursor = cursor
        self._options = options
        self._instance = InstanceId(secrets.token_bytes(InstanceId.LENGTH))
        self._number = 0
        self._session: _Session | None = None
        self._runner: asyncio.Task[None] | None = None
        self._arrived: deque[tuple[_Session, Incoming] | BaseException | None] = deque()
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._closed = False

    async def send(self, outgoing: Outgoing) -> SendResult:
        """See `EnvelopeTransport.send`."""
        frame = Send(outgoing.counter, outgoing.recipient_list, outgoing.sender_list, outgoing.envelope)
        async with self._sending:  # fair, so envelopes go out in the order of the calls
            session = self._connected()
            answer = session.unanswered.get(outgoing.envelope_id)
            if answer is None:
                await session.until_room(len(outgoing.envelope))
                answer = session.expect(outgoing.envelope_id, len(outgoing.envelope))
                await session.write(frame)
        # Shielded: another call may wait for the same answer.
        return await asyncio.shield(answer)

    async def receive(self) -> AsyncIterator[Incoming]:
        """See `EnvelopeTransport.receive`."""
        if self._runner is None and not self._closed:
            self._runner = asyncio.create_task(self._run())
        while True:
            while not self._arrived:
                self._news.clear()
                await self._news.wait()
            arrival = self._arrived[0]
            if arrival is None:
                return
            if isinstance(arrival, BaseException):
                raise arrival
            self._arrived.popleft()
            session, item = arrival
            yield item
            # Asked for the next one: this one is taken, so the server may send as much again.
            if isinstance(item, Delivery):
                await session.taken(item)

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        """See `EnvelopeTransport.ack`."""
        session = self._session
        for at in range(0, len(ranges), MAX_ACK_RANGES):
            if session is not None:
                await session.write(Ack(epoch, tuple(ranges[at : at + MAX_ACK_RANGES])))

    async def aclose(self) -> None:
        """See `EnvelopeTransport.aclose`."""
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._arrived.clear()
        self._put(None)

    def _connected(self) -> "_Session":
        session = self._session
        if session is None or session.ended.is_set():
            raise TransportUnavailableError("not connected")
        return session

    def _arrive(self, session: "_Session", item: Incoming) -> None:
        if isinstance(item, Connected):
            # In the same step as the answer to hello: deliveries follow on its heels.
            self._session = session
            self._arrived.clear()
        self._put((session, item))

    def _put(self, item: "tuple[_Session, Incoming] | BaseException | None") -> None:
        self._arrived.append(item)
        self._news.set()

    async def _run(self) -> None:
        """Keep one session after the other until closed; an error that ends it goes to `receive`."""
        failures = 0
        try:
            while True:
                failures = 0 if await self._connect() else failures + 1
                limit = min(self._options.max_backoff, self._options.first_backoff * 2.0 ** min(failures, 16))
                await asyncio.sleep(self._options.jitter() * limit)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed over, not swallowed
            self._put(error)

    async def _connect(self) -> bool:
        """Run one session to its end. Return whether it came to a `hello` and its answer."""
        session = _Session(self._options, self._arrive, self._token)
        try:
            hello = await self._hello()
            if hello is None:
                return False
            async with asyncio.timeout(self._options.connect_timeout):
                session.wire = await self._dial(session)
            await session.write(hello)
            async with asyncio.timeout(self._options.hello_timeout):
                await session.answered.wait()
            await session.ended.wait()
        except (OSError, TransportUnavailableError):
            pass
        finally:
            self._session = None
            await session.close()
        if session.refusal is not None:
            raise session.refusal
        return session.welcomed

    async def _hello(self) -> Hello | None:
        try:
            token, cursor = await self._token(), await self._cursor()
        except TransportRefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - of the application's callables: a server it asks may be down
            _logger.warning("No token or cursor to connect with: %s", type(error).__name__)
            return None
        self._number += 1
        credit = self._options.credit_messages, self._options.credit_bytes
        return Hello(token, self._instance, self._number, cursor.epoch, cursor.watermark, *credit)


@final
class _Session:
    """One connection of a link. What arrives after its end is ignored."""

    def __init__(
        self, options: LinkOptions, arrive: Callable[["_Session", Incoming], None], token: TokenSource
    ) -> None:
        self._options = options
        self._arrive = arrive
        self._token = token
        self.wire: Wire | None = None
        self.welcomed = False
        self.answered = asyncio.Event()
        """Set when `hello` was answered, or the connection ended instead."""
        self.ended = asyncio.Event()
        self.refusal: TransportRefusedError | None = None
        self.unanswered: dict[EnvelopeId, asyncio.Future[SendResult]] = {}
        self._sizes: dict[EnvelopeId, int] = {}
        self._room = asyncio.Event()
        self._taken_messages = 0
        self._taken_bytes = 0
        self._refreshing: asyncio.Task[None] | None = None

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

    def lost(self) -> None:
        """The connection has ended: everything that waits for it learns so."""
        if self.ended.is_set():
            return
        self.ended.set()
        self.answered.set()
        self._room.set()
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
        if self._refreshing is not None:
            self._refreshing.cancel()
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
        return answer

    async def taken(self, delivery: Delivery) -> None:
        """Count what the application took; give the credit back a quarter of the window at a time."""
        self._taken_messages += 1
        self._taken_bytes += 0 if delivery.envelope is None else len(delivery.envelope)
        options = self._options
        if self._taken_messages * 4 >= options.credit_messages or self._taken_bytes * 4 >= options.credit_bytes:
            credit = Credit(self._taken_messages, self._taken_bytes)
            self._taken_messages = self._taken_bytes = 0
            await self.write(credit)

    def _take(self, frame: ServerFrame) -> None:
        match frame:
            case Welcome():
                if not self.welcomed:
                    self.welcomed = True
                    self.answered.set()
                    self._arrive(self, _connected(frame))
            case Deliver(epoch, seq, envelope, sender, envelope_id, dropped):
                self._arrive(self, Delivery(epoch, seq, envelope, sender, envelope_id, dropped))
            case Sent(envelope_id, duplicate):
                self._answer(envelope_id, Accepted(envelope_id, duplicate))
            case Error(close_code=None):
                self._refused(frame)
            case Error():
                self._ended_by(frame)

    def _answer(self, envelope_id: EnvelopeId, result: SendResult) -> None:
        answer = self.unanswered.pop(envelope_id, None)
        self._sizes.pop(envelope_id, None)
        self._room.set()
        if answer is not None and not answer.done():
            answer.set_result(result)

    def _refused(self, error: Error) -> None:
        if error.envelope_id is not None:
            stale = error.user_id, error.seq, error.device_ids or ()
            self._answer(
                error.envelope_id,
                Refused(error.envelope_id, error.code.value, error.detail, error.retry_after, *stale),
            )
        elif error.code is ErrorCode.TOKEN_EXPIRED and self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    def _ended_by(self, error: Error) -> None:
        if error.close_code is not None and error.close_code.terminal:
            self.refusal = TransportRefusedError(error.code.value, int(error.close_code))
        self.lost()

    async def _refresh(self) -> None:
        try:
            await self.write(Refresh(await self._token()))
        except Exception as error:  # noqa: BLE001 - of the application's callable; the connection ends and is made anew
            _logger.warning("No fresh device token: %s", type(error).__name__)
        finally:
            self._refreshing = None


def _connected(welcome: Welcome) -> Connected:
    return Connected(
        epoch=welcome.epoch,
        head_seq=welcome.head_seq,
        accepted_counter=welcome.accepted_counter,
        acked_epoch=welcome.acked_epoch,
        acked_seq=welcome.acked_seq,
        server_time=welcome.server_time,
        settled_through=welcome.settled_through,
        dropped_through=welcome.dropped_through,
    )
