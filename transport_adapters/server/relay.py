"""The relay: all live connections of this process, behind every transport.

Owns: which connection is a device's live one, cutting, draining, housekeeping of the mailbox.
Does not know about: Socket.IO, HTTP or any other way to carry frames; what an envelope holds.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, assert_never, final

import sqlalchemy

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Hello, InstanceId
from transport_adapters.server.bus import Admitted, Bus, Cut, LocalBus, NodeNews, Resumed
from transport_adapters.server.channel import DEFAULT_CARRIAGE, Carriage, Channel
from transport_adapters.server.connection import Connection
from transport_adapters.server.intake import Intake, Ports
from transport_adapters.server.mailbox import Mailbox
from transport_adapters.server.ports import (
    ContactPolicy,
    Database,
    DeviceDirectory,
    Meter,
    NoMeter,
    TokenVerifier,
    Waker,
)
from transport_adapters.server.presence import PresenceService, Surroundings
from transport_adapters.server.retention import BATCH, expire, purge
from transport_adapters.server.settings import DEFAULT_MAILBOX, DEFAULT_RELAY, MailboxSettings, RelaySettings
from transport_adapters.server.tables import MailboxTables

_logger = logging.getLogger(__name__)

NO_METER: Final = NoMeter()


class _Live(NamedTuple):
    connection: Connection
    instance: InstanceId
    number: int
    at: int
    """When it said `hello`, Unix milliseconds."""


def _anyone(_address: DeviceAddress) -> bool:
    return True


@final
@dataclass(eq=False)
class Relay:
    """Carries frames between devices and the mailbox. `start` before use, `close` after."""

    database: Database
    tables: MailboxTables
    directory: DeviceDirectory
    tokens: TokenVerifier
    contacts: ContactPolicy
    _: KW_ONLY
    now: Callable[[], int]
    settings: RelaySettings = DEFAULT_RELAY
    mailbox_settings: MailboxSettings = DEFAULT_MAILBOX
    bus: Bus = field(default_factory=LocalBus)
    waker: Waker | None = None
    meter: Meter = NO_METER
    mailbox: Mailbox = field(init=False)
    intake: Intake = field(init=False)
    presence: PresenceService = field(init=False)
    cuts: int = field(default=0, init=False)
    """How often `cut` was called: what was verified before may have changed."""
    cut_listeners: list[Callable[[DeviceAddress | UserId, ErrorCode], None]] = field(default_factory=list, init=False)
    """Called with what is cut, on this node or another, before its connections end here."""

    def __post_init__(self) -> None:
        self.mailbox = Mailbox(self.tables, self.mailbox_settings)
        ports = Ports(self.database, self.directory, self.contacts, self.bus, self.now, self._stored)
        self.intake = Intake(self.mailbox, ports, self.settings)
        around = Surroundings(
            self.database, self.tables.presence, self.contacts, self.bus, self.now, self.settings, self.spawn
        )
        self.presence = PresenceService(around)
        self._live: dict[DeviceAddress, _Live] = {}
        self._addresses: dict[Connection, DeviceAddress] = {}
        self._connections: set[Connection] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._housekeeping: asyncio.Task[None] | None = None
        self._draining = False
        self.bus.subscribe_nodes(self._hear)

    async def start(self) -> None:
        """Begin housekeeping and presence, and to hear other nodes. Idempotent."""
        await self.bus.start()
        self.presence.start()
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(self._keep_house())

    async def close(self) -> None:
        """End all connections with "draining", finish what was begun. Idempotent."""
        self._draining = True
        for connection in list(self._connections):
            connection.end(ErrorCode.DRAINING, CloseCode.DRAINING, "the server is going down; reconnect")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                while self._background:
                    await asyncio.wait(self._background)
        for task in self._background:
            task.cancel()
        await self.presence.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
            self._housekeeping = None
        await self.bus.close()

    def connect(
        self, channel: Channel, carriage: Carriage = DEFAULT_CARRIAGE, may_be: Callable[[DeviceAddress], bool] = _anyone
    ) -> Connection:
        """Take in a new connection of an endpoint; it has to send `hello` soon, as a device that it `may_be`."""
        connection = Connection(self, channel, carriage, may_be)
        self._connections.add(connection)
        if self._draining:
            connection.end(ErrorCode.DRAINING, CloseCode.DRAINING, "the server is going down; reconnect")
        return connection

    def cut(self, target: DeviceAddress | UserId, code: ErrorCode = ErrorCode.DEVICE_REVOKED) -> None:
        """End the connections of a device, or of all of a user's devices, at once and on every node.

        `code` says why: `device_revoked` for good, `token_invalid` if only the login ended.
        """
        self._cut(target, code)
        self.bus.publish_to_nodes(Cut(target, code))

    def _cut(self, target: DeviceAddress | UserId, code: ErrorCode) -> None:
        close_code = CloseCode.REVOKED if code is ErrorCode.DEVICE_REVOKED else CloseCode.TOKEN_EXPIRED
        self.cuts += 1
        for listener in self.cut_listeners:
            listener(target, code)
        for address, live in list(self._live.items()):
            if target in (address, address.user_id):
                live.connection.end(code, close_code, "access was withdrawn")

    def log_out(self, user_id: UserId) -> None:
        """End the connections of a user whose logins ended; a new login may connect."""
        self.cut(user_id, ErrorCode.TOKEN_INVALID)

    def _stored(self, address: DeviceAddress, lane: Lane) -> None:
        if self.waker is not None:
            self.waker.stored(address, lane)

    @property
    def live_connections(self) -> int:
        """Devices that have a connection here which said `hello`."""
        return len(self._live)

    def is_live(self, address: DeviceAddress) -> bool:
        """Say whether the device has a connection here that said `hello`."""
        return address in self._live

    def admit(self, connection: Connection, address: DeviceAddress, hello: Hello) -> bool:
        """Make `connection` the device's live one, ending the one before; False if that one is newer."""
        before = self._live.get(address)
        if before is not None:
            if before.instance == hello.instance and hello.connection <= before.number:
                return False
            before.connection.end(ErrorCode.REPLACED, CloseCode.REPLACED, "another connection took over")
        live = _Live(connection, hello.instance, hello.connection, self.now())
        self._live[address] = live
        self._addresses[connection] = address
        self._announce(address, live)
        return True

    def _announce(self, address: DeviceAddress, live: _Live) -> None:
        self.bus.publish_to_nodes(Admitted(address, live.instance, live.number, live.at))

    def _hear(self, news: NodeNews) -> None:
        match news:
            case Cut(target, code):
                self._cut(target, code)
            case Admitted():
                self._compare(news)
            case Resumed():
                # Each node may have let the same device in while they could not hear each other.
                for address, live in self._live.items():
                    self._announce(address, live)
            case _:
                assert_never(news)

    def _compare(self, other: Admitted) -> None:
        """End our connection of a device if the one that another node has is newer; else say that ours is."""
        live = self._live.get(other.address)
        if live is None:
            return
        theirs, ours = (other.at, other.instance.raw), (live.at, live.instance.raw)
        if live.instance == other.instance:
            theirs, ours = (other.number, b""), (live.number, b"")
        if theirs == ours:
            # Two bridges that both serve a bucket for a moment have taken one `hello`. It may come back: it is no other
            # program. Both end, or each node would answer the other for ever.
            live.connection.end(ErrorCode.DRAINING, CloseCode.DRAINING, "two nodes took one hello; reconnect")
        elif theirs > ours:
            live.connection.end(ErrorCode.REPLACED, CloseCode.REPLACED, "another connection took over")
        else:
            self._announce(other.address, live)

    def forget(self, connection: Connection) -> None:
        """Drop an ended connection. A displaced one was dropped before the newer one was admitted."""
        self._connections.discard(connection)
        address = self._addresses.pop(connection, None)
        if address is not None:
            del self._live[address]
            if self.waker is not None:
                self.waker.left(address)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something that `close` waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def tidy(self) -> None:
        """Expire and purge everything due now."""
        for step in (expire, purge):
            while await self.database.write(partial(self._tidied, step)) == BATCH:
                pass

    def _tidied(self, step: Callable[[Mailbox, sqlalchemy.Connection, int], int], on: sqlalchemy.Connection) -> int:
        return step(self.mailbox, on, self.now())

    async def _keep_house(self) -> None:
        while True:
            try:
                await self.tidy()
            except Exception as error:  # noqa: BLE001 - of the database; the next round tries again
                _logger.error("Housekeeping failed: %s", type(error).__name__)
            await asyncio.sleep(self.settings.housekeeping_interval)
