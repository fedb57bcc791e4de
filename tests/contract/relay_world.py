"""A relay with everything around it, for tests: database, device lists, tokens, contacts, a clock, and its clients."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy

from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId
from keyserver.database import Database, database_url
from tests.databases import database_for
from transport_adapters.base import (
    Connected,
    Cursor,
    Delivery,
    EnvelopeTransport,
    Incoming,
    ListClaim,
    Outgoing,
    PresenceSeen,
    SeqRange,
    TypingSeen,
)
from transport_adapters.codes import CloseCode
from transport_adapters.frames import (
    ClientFrame,
    Deliver,
    Error,
    Hello,
    InstanceId,
    Send,
    Sent,
    ServerFrame,
    Typing,
    Welcome,
)
from transport_adapters.link import LinkOptions
from transport_adapters.server import ports
from transport_adapters.server.bus import Bus, LocalBus
from transport_adapters.server.ports import OK, Principal, SendCheck, StaleList, TokenRefusedError, Unavailable
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import DEFAULT_MAILBOX, DEFAULT_RELAY, MailboxSettings, RelaySettings
from transport_adapters.server.tables import define_tables

T = TypeVar("T")
Frame = TypeVar("Frame", Welcome, Sent, Deliver, Typing, Error)
START = 1_800_000_000_000
TOKEN_LIFETIME_MS = 15 * 60 * 1000
PATIENT = replace(DEFAULT_RELAY, hello_timeout=60, send_timeout=60, reread_interval=3600, close_timeout=0.5)
"""Timers of a test's relay: those that a test does not mean to see never fire within it."""
EAGER_LINK = LinkOptions(first_backoff=0.01, max_backoff=0.05, jitter=lambda: 1.0)


def address(user: str, device: int = 1) -> DeviceAddress:
    return DeviceAddress(UserId(user), DeviceId(bytes([device]) * 16))


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


class Lists:
    """The newest device list of each user: implements `DeviceDirectory`."""

    def __init__(self) -> None:
        self.newest: dict[UserId, tuple[ListClaim, tuple[DeviceId, ...]]] = {}
        self.unavailable: set[DeviceAddress] = set()

    def claim(self, user: UserId) -> ListClaim:
        return self.newest[user][0]

    def change(self, user: UserId, *devices: DeviceId) -> None:
        seq = self.newest[user][0].seq + 1 if user in self.newest else 1
        named = b"".join(each.raw for each in devices)
        self.newest[user] = ListClaim(seq, hashlib.sha256(bytes([seq]) + named).digest()), devices

    def check_send(
        self,
        _connection: sqlalchemy.Connection,
        sender: DeviceAddress,
        recipient: DeviceAddress,
        sender_list: ListClaim,
        recipient_list: ListClaim,
    ) -> SendCheck:
        for user, claim in ((sender.user_id, sender_list), (recipient.user_id, recipient_list)):
            newest, devices = self.newest.get(user, (ListClaim(0, bytes(32)), ()))
            if claim != newest:
                return StaleList(user, newest.seq, devices)
        listed = recipient.device_id in self.newest[recipient.user_id][1]
        return Unavailable() if recipient in self.unavailable or not listed else OK


class Tokens:
    """Device tokens: implements `TokenVerifier`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.issued: dict[str, Principal] = {}
        self.refused: dict[DeviceAddress, str] = {}

    def issue(self, owner: DeviceAddress, lifetime_ms: int = TOKEN_LIFETIME_MS) -> str:
        token = f"secret-token-{owner}-{len(self.issued)}"
        self.issued[token] = Principal(owner, 1, self._clock() + lifetime_ms)
        return token

    async def verify(self, token: str) -> Principal:
        principal = self.issued.get(token)
        if principal is None:
            raise TokenRefusedError("token_invalid")
        if principal.address in self.refused:
            raise TokenRefusedError(self.refused[principal.address])
        if principal.expires_at <= self._clock():
            raise TokenRefusedError("token_expired")
        return principal


class Contacts:
    """Everybody may reach everybody, and nobody may see anybody, except the pairs named: a `ContactPolicy`."""

    def __init__(self) -> None:
        self.refused: set[tuple[str, str]] = set()
        self.visible: set[tuple[str, str]] = set()
        """(who watches, whom): the pairs that may."""
        self.asked = 0

    async def may_contact(self, sender: UserId, recipient: UserId) -> bool:
        self.asked += 1
        return (sender, recipient) not in self.refused

    async def may_see(self, watcher: UserId, watched: UserId) -> bool:
        return (watcher, watched) in self.visible


class People(NamedTuple):
    """Whom a relay asks about devices; several relays may ask the same."""

    clock: Clock
    lists: Lists
    tokens: Tokens
    contacts: Contacts


@dataclass
class RelayWorld:
    database: Database
    relay: Relay
    clock: Clock
    lists: Lists
    tokens: Tokens
    contacts: Contacts
    _counters: dict[DeviceAddress, int] = field(default_factory=dict)
    _ids: int = 0

    async def device(self, user: str, device: int = 1) -> DeviceAddress:
        """Register a device: an inbox, and a place in its user's list."""
        owner = address(user, device)
        await self.database.write(lambda on: self.relay.mailbox.create_inbox(on, owner, self.clock()))
        others = self.lists.newest.get(owner.user_id, (None, ()))[1]
        self.lists.change(owner.user_id, *others, owner.device_id)
        return owner

    def outgoing(
        self,
        sender: DeviceAddress,
        recipient: DeviceAddress,
        body: bytes = b"ciphertext",
        *,
        lane: Lane = Lane.CHAT,
        ttl: int = 3600,
    ) -> Outgoing:
        """Make the next envelope of a sender, with current list claims and counter."""
        self._ids += 1
        counter = self._counters[sender] = self._counters.get(sender, 0) + 1
        envelope = Envelope(EnvelopeId(self._ids.to_bytes(16, "big")), sender, recipient, lane, ttl, body)
        claims = self.lists.claim(recipient.user_id), self.lists.claim(sender.user_id)
        return Outgoing(counter, envelope.encode(), envelope.envelope_id, *claims)


@asynccontextmanager
async def relay_world(
    directory: Path,
    settings: RelaySettings = PATIENT,
    mailbox: MailboxSettings = DEFAULT_MAILBOX,
    wrap: Callable[[Database], ports.Database] = lambda database: database,
) -> AsyncIterator[RelayWorld]:
    """Open a relay on a database file in `directory`; `wrap` may put something between the two."""
    url = database_for(directory / "relay.db")
    clock = Clock()
    people = People(clock, Lists(), Tokens(clock), Contacts())
    async with _relay(url, people, settings, mailbox, LocalBus(), wrap) as world:
        yield world


@asynccontextmanager
async def two_nodes(
    url: str, buses: tuple[Bus, Bus], settings: RelaySettings = PATIENT
) -> AsyncIterator[list[RelayWorld]]:
    """Open two relays on one database, as two processes would have them; they know the same people."""
    clock = Clock()
    people = People(clock, Lists(), Tokens(clock), Contacts())
    async with AsyncExitStack() as stack:
        nodes = []
        for bus in buses:
            node = _relay(url, people, settings, DEFAULT_MAILBOX, bus)
            nodes.append(await stack.enter_async_context(node))
            await nodes[-1].relay.start()
        yield nodes


@asynccontextmanager
async def _relay(
    url: str,
    people: People,
    settings: RelaySettings,
    mailbox: MailboxSettings,
    bus: Bus,
    wrap: Callable[[Database], ports.Database] = lambda database: database,
) -> AsyncIterator[RelayWorld]:
    metadata = sqlalchemy.MetaData()
    tables = define_tables(metadata)
    database = Database(database_url(url))
    await database.start()
    await database.write(metadata.create_all)
    relay = Relay(
        wrap(database),
        tables,
        people.lists,
        people.tokens,
        people.contacts,
        now=people.clock,
        settings=settings,
        mailbox_settings=mailbox,
        bus=bus,
    )
    try:
        yield RelayWorld(database, relay, people.clock, people.lists, people.tokens, people.contacts)
    finally:
        await relay.close()
        await database.close()


class Peer:
    """One device's client: takes what its transport receives, as an application would."""

    def __init__(self, transport: EnvelopeTransport, cursor: "CursorCell") -> None:
        self.transport = transport
        self.cursor = cursor
        self.connected: asyncio.Queue[Connected] = asyncio.Queue()
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.seen: asyncio.Queue[PresenceSeen | TypingSeen] = asyncio.Queue()
        self.outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        try:
            async for incoming in self.transport.receive():
                self._take(incoming)
        except Exception as error:  # noqa: BLE001 - the tests judge it
            self.outcome.set_result(error)
        else:
            self.outcome.set_result(None)

    def _take(self, incoming: Incoming) -> None:
        if isinstance(incoming, Connected):
            self.connected.put_nowait(incoming)
        elif isinstance(incoming, Delivery):
            self.deliveries.put_nowait(incoming)
        else:
            self.seen.put_nowait(incoming)

    async def online(self) -> Connected:
        """Wait for the next answer to hello."""
        return await within(self.connected.get())

    async def next(self) -> Delivery:
        return await within(self.deliveries.get())

    async def sees(self, expected: PresenceSeen | TypingSeen) -> None:
        """Wait until this was heard of presence."""
        async with asyncio.timeout(20):
            while await self.seen.get() != expected:
                pass

    async def take(self, count: int) -> list[Delivery]:
        return [await self.next() for _ in range(count)]

    async def ack(self, *deliveries: Delivery) -> None:
        ranges = [SeqRange(each.seq, each.seq) for each in sorted(deliveries, key=lambda each: each.seq)]
        await self.transport.ack(deliveries[0].epoch, ranges)

    async def close(self) -> None:
        await self.transport.aclose()
        await within(asyncio.wait([self._task]))


class CursorCell:
    """Where a test keeps its cursor."""

    def __init__(self) -> None:
        self.value = Cursor(0, 0)

    async def __call__(self) -> Cursor:
        return self.value


async def within(awaitable: Awaitable[T], seconds: float = 20.0) -> T:
    """Wait; a test that would hang fails instead."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def eventually(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until something that nobody announces has happened."""
    async with asyncio.timeout(20):
        while True:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.005)


class FrameClient:
    """Speaks frames to a relay directly: both a client and the channel to it."""

    def __init__(self, world: RelayWorld, owner: DeviceAddress, number: int = 1, instance: int = 1) -> None:
        self.world = world
        self.owner = owner
        self.number = number
        self.instance = InstanceId(bytes([instance]) * 16)
        self.frames: list[ServerFrame] = []
        self.closed_with: CloseCode | None = None
        self.readable = asyncio.Event()
        """Cleared: the client does not read, and its transport holds one frame up."""
        self.readable.set()
        self._news = asyncio.Event()
        self._seen = 0
        self.connection = world.relay.connect(self)

    async def send(self, frame: ServerFrame) -> None:
        await self.readable.wait()
        self.frames.append(frame)
        self._news.set()

    async def close(self, code: CloseCode) -> None:
        self.closed_with = code
        self._news.set()

    def say(self, frame: ClientFrame) -> None:
        self.connection.receive(frame.EVENT, frame.to_fields())

    def hello(self, messages: int = 1_000, size: int = 1 << 30, *, token: str | None = None) -> None:
        token = token or self.world.tokens.issue(self.owner)
        self.say(Hello(token, self.instance, self.number, 0, 0, messages, size))

    def post(self, recipient: DeviceAddress, body: bytes = b"ciphertext", **options: Any) -> Outgoing:
        """Send an envelope; the answer comes as a frame."""
        outgoing = self.world.outgoing(self.owner, recipient, body, **options)
        self.say(Send(outgoing.counter, outgoing.recipient_list, outgoing.sender_list, outgoing.envelope))
        return outgoing

    async def next(self, kind: type[Frame]) -> Frame:
        """Wait for the next frame of a kind; those before it were looked for by others."""
        async with asyncio.timeout(20):
            while True:
                for at, frame in enumerate(self.frames[self._seen :], self._seen):
                    if isinstance(frame, kind):
                        self._seen = at + 1
                        return frame
                self._news.clear()
                await self._news.wait()

    async def online(self) -> Welcome:
        self.hello()
        return await self.next(Welcome)

    async def answered(self, recipient: DeviceAddress) -> None:
        """Send something and wait for the answer: what came before it has been processed."""
        name = self.post(recipient).envelope_id
        while True:
            frame = await self.next(Sent)
            if frame.envelope_id == name:
                return

    async def closed(self) -> CloseCode:
        async with asyncio.timeout(20):
            while self.closed_with is None:
                self._news.clear()
                await self._news.wait()
        return self.closed_with

    def deliveries(self) -> list[Deliver]:
        return [frame for frame in self.frames if isinstance(frame, Deliver)]

    def errors(self) -> list[Error]:
        return [frame for frame in self.frames if isinstance(frame, Error)]
