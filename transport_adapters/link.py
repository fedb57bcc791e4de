"""The client side of the frames, whatever carries them: one link that stays connected.

Owns: dialling and reconnecting, one exchange after the other, the numbers of the connections, what has arrived and was
not taken yet.
Does not know about: what goes on over one connection (exchange.py); sockets and libraries. An adapter brings a `dial`
function and the frames' way over its wire. Nor that there may be two routes (failover.py): whoever keeps the link
connected says which one to take.

Reconnecting goes on for ever, after random() * min(30 s, 1 s * 2^n): full jitter. A device token is renewed when the
server says that it expired; the server then waits 25 s. Deliveries the application has not taken when a connection
ends are dropped here: the server sends everything unacked again. What was said about presence is said again on every
connection. What is heard of it overtakes deliveries, and of each user only the newest waits: no credit bounds it.


A link is one instance to the server, which keeps its connection with the highest number. Numbers are given out as
`hello` is said, one `hello` at a time, so the connection that answers is the newest, over whatever route.
"""

import asyncio
import ipaddress
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Final, Protocol, assert_never, final, runtime_checkable
from urllib.parse import urlsplit

from e2ee.wire.identifiers import UserId
from transport_adapters import frames
from transport_adapters.base import (
    Announce,
    Connected,
    Cursor,
    Delivery,
    Incoming,
    InsecureUrlError,
    Outgoing,
    PresenceSeen,
    SendResult,
    SeqRange,
    Signal,
    TransportRefusedError,
    TransportUnavailableError,
    TypeTo,
    TypingSeen,
    Watch,
)
from transport_adapters.codes import ErrorCode
from transport_adapters.exchange import (
    CursorSource,
    Dial,
    Exchange,
    LinkOptions,
    Receiver,
    Route,
    TokenSource,
    Wire,
)
from transport_adapters.fields import MAX_ACK_RANGES
from transport_adapters.frames import Ack, Hello, InstanceId, Send

# All that an adapter needs.
__all__ = [
    "CursorSource",
    "Dial",
    "Link",
    "LinkOptions",
    "LinkTransport",
    "Linked",
    "Receiver",
    "Route",
    "TokenSource",
    "Wire",
    "require_loopback",
    "require_secure",
]

_logger = logging.getLogger(__name__)


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
    if parts.scheme not in ("https", "wss"):
        require_loopback(host, parts.scheme)


def require_loopback(host: str, scheme: str) -> None:
    """Refuse a host to which plaintext would leave this machine.

    Raises:
        InsecureUrlError: it is not loopback.
    """
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InsecureUrlError(scheme)


@runtime_checkable
class Linked(Protocol):
    """A transport that is a link, as those of this package are: its route may be one of several (failover.py)."""

    @property
    def link(self) -> "Link":
        """The link that does the work."""
        ...


@final
class Link:
    """A transport (see `EnvelopeTransport`) over connections that `dial` makes.

    `keep` keeps the link connected in place of the link itself: by `open` and `run`, until it is cancelled. What it
    raises ends the link.
    """

    def __init__(
        self,
        dial: Dial,
        token: TokenSource,
        cursor: CursorSource,
        options: LinkOptions,
        keep: Callable[["Link"], Awaitable[None]] | None = None,
    ) -> None:
        self.route = Route(dial, token, cursor, options)
        self._keep = keep or _keep_connected
        self._instance = InstanceId(secrets.token_bytes(InstanceId.LENGTH))
        self._number = 0
        """Of the last connection on which `hello` was said."""
        self._greeting = asyncio.Lock()
        self._session: Exchange | None = None
        self._open: set[Exchange] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._arrived: deque[tuple[Exchange, Incoming] | BaseException | None] = deque()
        self._seen: dict[object, PresenceSeen | TypingSeen] = {}
        self._announced: Announce | None = None
        self._watched: Watch | None = None
        self._watched_users: frozenset[UserId] = frozenset()
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._closed = False

    async def send(self, outgoing: Outgoing) -> SendResult:
        """See `EnvelopeTransport.send`."""
        frame = Send(outgoing.counter, outgoing.recipient_list, outgoing.sender_list, outgoing.envelope)
        session = self._connected()
        async with self._sending:  # fair, so envelopes go out in the order of the calls
            if session is not self._connected():
                # Those before it were lost with the old connection: on the new one it would overtake them.
                raise TransportUnavailableError("the connection ended")
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
            while not self._arrived and not self._seen:
                self._news.clear()
                await self._news.wait()
            if seen := self._next_seen():
                yield seen
                continue
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
        if any(before.last >= after.first for before, after in pairwise(ranges)):
            raise ValueError("ranges ascend and do not overlap")
        session = self._session
        for at in range(0, len(ranges), MAX_ACK_RANGES):
            if session is not None:
                await session.write(Ack(epoch, tuple(ranges[at : at + MAX_ACK_RANGES])))

    async def signal(self, signal: Signal) -> None:
        """See `EnvelopeTransport.signal`."""
        match signal:
            case Announce():
                self._announced = signal
            case Watch():
                self._watched, self._watched_users = signal, frozenset(signal.users)
                self._seen = {key: seen for key, seen in self._seen.items() if seen.user_id in self._watched_users}
            case TypeTo():
                pass
            case _:
                assert_never(signal)
        session = self._session
        if session is not None:
            await session.write(_signal_frame(signal))

    async def aclose(self) -> None:
        """See `EnvelopeTransport.aclose`."""
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        if self._closing:
            await asyncio.wait(self._closing)
        self._arrived.clear()
        self._put(None)

    async def open(self, route: Route, *, unless: Route | None = None) -> Exchange | None:
        """Make a connection and say hello; an open one over another route is used until the server has answered.

        Says no hello when a connection over the route `unless` is in use by then. Returns None if there was no token or
        no cursor to say hello with; else what became of it: look at `welcomed`, and hand it to `run` if it was.

        Raises:
            TransportRefusedError: the server ended it for good.
        """
        session = Exchange(route, self._arrive)
        self._open.add(session)
        try:
            prepared = await _prepared(route)
            if prepared is None:
                return None
            async with asyncio.timeout(route.options.connect_timeout):
                session.wire = await route.dial(session)
            if self._closed:
                # A library may have swallowed the cancellation with which `aclose` ends this, as `asyncio.wait_for` of
                # Python 3.11 does when what it waits for comes at that moment; then `aclose` waited for ever.
                raise asyncio.CancelledError
            # One at a time: else a second hello displaces the first connection before its answer has come.
            async with self._greeting:
                if unless is None or not self._uses(unless):
                    await self._greet(session, *prepared)
        except (OSError, TransportUnavailableError):
            pass
        except BaseException:
            self._release(session)
            raise
        if not session.welcomed:
            self._release(session)
            self._judge(session)
        return session

    async def run(self, session: Exchange) -> None:
        """Wait for the end of a connection that was welcomed, and release it; also when cancelled.

        Raises:
            TransportRefusedError: the server ended it for good.
        """
        try:
            await session.ended.wait()
        finally:
            self._release(session)
        self._judge(session)

    def _connected(self) -> Exchange:
        session = self._session
        if session is None or session.ended.is_set():
            raise TransportUnavailableError("not connected")
        return session

    def _arrive(self, session: Exchange, item: Incoming) -> None:
        if isinstance(item, PresenceSeen | TypingSeen):
            self._see(item)
            return
        if isinstance(item, Connected):
            # In the same step as the answer to hello: deliveries follow on its heels.
            before, self._session = self._session, session
            if before is not None:
                before.lost()  # the server has ended it, or is about to; and nothing of it may come after this
            self._arrived.clear()
            self._seen.clear()
        self._put((session, item))

    def _uses(self, route: Route) -> bool:
        session = self._session
        return session is not None and session.route is route and not session.ended.is_set()

    def _see(self, item: PresenceSeen | TypingSeen) -> None:
        """Keep the newest of each user; a server may say as much as it likes, but only of those we asked about."""
        if item.user_id in self._watched_users:
            self._seen[type(item), item.user_id] = item
            self._news.set()

    def _next_seen(self) -> PresenceSeen | TypingSeen | None:
        """Take what is heard of presence before deliveries, but after the answer to hello, and not after the end."""
        first = self._arrived[0] if self._arrived else ()
        if not self._seen or not isinstance(first, tuple) or (first and isinstance(first[1], Connected)):
            return None
        return self._seen.pop(next(iter(self._seen)))

    def _put(self, item: "tuple[Exchange, Incoming] | BaseException | None") -> None:
        self._arrived.append(item)
        self._news.set()

    async def _run(self) -> None:
        """Have the link kept connected until it is closed; an error that ends it goes to `receive`."""
        try:
            await self._keep(self)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed over, not swallowed
            self._put(error)
        finally:
            for session in list(self._open):
                self._release(session)

    async def _greet(self, session: Exchange, token: str, cursor: Cursor) -> None:
        self._number += 1
        session.number = self._number
        options = session.route.options
        credit = options.credit_messages, options.credit_bytes
        await session.write(Hello(token, self._instance, session.number, cursor.epoch, cursor.watermark, *credit))
        async with asyncio.timeout(options.hello_timeout):
            await session.answered.wait()
        for said in (self._announced, self._watched):
            if said is not None:
                await session.write(_signal_frame(said))

    def _release(self, session: Exchange) -> None:
        """Be done with a connection. A dead one may take its time to close, and nobody waits for that."""
        self._open.discard(session)
        if self._session is session:
            self._session = None
        session.lost()
        closing = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _judge(self, session: Exchange) -> None:
        """Raise what ends the link for good. Being replaced does not, if it may have been by a connection of ours."""
        refusal = session.refusal
        if refusal is not None and not (refusal.reason == ErrorCode.REPLACED and session.number < self._number):
            raise refusal


class LinkTransport:
    """An `EnvelopeTransport` that is a link. An adapter inherits it, and brings the link's `dial`."""

    def __init__(self, link: Link) -> None:
        self.link: Final = link
        """See `Linked`."""

    async def send(self, outgoing: Outgoing) -> SendResult:
        """See `EnvelopeTransport.send`."""
        return await self.link.send(outgoing)

    def receive(self) -> AsyncIterator[Incoming]:
        """See `EnvelopeTransport.receive`."""
        return self.link.receive()

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        """See `EnvelopeTransport.ack`."""
        await self.link.ack(epoch, ranges)

    async def signal(self, signal: Signal) -> None:
        """See `EnvelopeTransport.signal`."""
        await self.link.signal(signal)

    async def aclose(self) -> None:
        """See `EnvelopeTransport.aclose`."""
        await self.link.aclose()


async def _keep_connected(link: Link) -> None:
    """Keep one session after the other."""
    failures = 0
    while True:
        session = await link.open(link.route)
        if session is not None and session.welcomed:
            failures = 0
            await link.run(session)
        else:
            failures += 1
        await asyncio.sleep(link.route.options.backoff(failures))


async def _prepared(route: Route) -> tuple[str, Cursor] | None:
    try:
        return await route.token(), await route.cursor()
    except TransportRefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - of the application's callables: a server it asks may be down
        _logger.warning("No token or cursor to connect with: %s", type(error).__name__)
        return None


def _signal_frame(signal: Signal) -> frames.Presence | frames.Watch | frames.Typing:
    match signal:
        case Announce(state, lease):
            return frames.Presence(state, lease)
        case Watch(users):
            return frames.Watch(users)
        case TypeTo(user_id, active, conversation):
            return frames.Typing(user_id, active, conversation)
        case _:
            assert_never(signal)
