"""The client side of the frames, whatever carries them: one link that stays connected.

Owns: dialling and reconnecting, one exchange after the other, what has arrived and was not taken yet.
Does not know about: what goes on over one connection (exchange.py); sockets and libraries. An adapter brings a `dial`
function and the frames' way over its wire.

Reconnecting goes on for ever, after random() * min(30 s, 1 s * 2^n): full jitter. A device token is renewed when the
server says that it expired; the server then waits 25 s. Deliveries the application has not taken when a connection
ends are dropped here: the server sends everything unacked again. What was said about presence is said again on every
connection. What is heard of it overtakes deliveries, and of each user only the newest waits: no credit bounds it.
"""

import asyncio
import ipaddress
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import assert_never, final
from urllib.parse import urlsplit

from e2ee.wire.identifiers import UserId
from transport_adapters import frames
from transport_adapters.base import (
    Announce,
    Connected,
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
from transport_adapters.exchange import CursorSource, Exchange, LinkOptions, Receiver, TokenSource, Wire
from transport_adapters.fields import MAX_ACK_RANGES
from transport_adapters.frames import Ack, Hello, InstanceId, Send

# All that an adapter needs.
__all__ = ["CursorSource", "Dial", "Link", "LinkOptions", "Receiver", "TokenSource", "Wire", "require_secure"]

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
    if parts.scheme in ("https", "wss") or host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InsecureUrlError(parts.scheme)


Dial = Callable[[Receiver], Awaitable[Wire]]
"""Makes one connection. Raises OSError (TimeoutError included) if that fails."""


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
        self._session: Exchange | None = None
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
        self._arrived.clear()
        self._put(None)

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
            self._session = session
            self._arrived.clear()
            self._seen.clear()
        self._put((session, item))

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
        session = Exchange(self._options, self._arrive, self._token)
        try:
            hello = await self._hello()
            if hello is None:
                return False
            async with asyncio.timeout(self._options.connect_timeout):
                session.wire = await self._dial(session)
            await session.write(hello)
            async with asyncio.timeout(self._options.hello_timeout):
                await session.answered.wait()
            for said in (self._announced, self._watched):
                if said is not None:
                    await session.write(_signal_frame(said))
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
