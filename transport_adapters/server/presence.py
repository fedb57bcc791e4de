"""Presence: which devices are there, and who is told.

Owns: the leases of this node's connections, when they are written, renewed and ended; the way of news to the watchers.
Does not know about: SQL (leases.py), who may see whom (watching.py), transports: a connection says when its client last
gave a sign of life.

Only a device that announced itself has a lease: of all others nothing is written. A lease ends 30 s after the last sign
of life, whatever happens to the node; at once when the connection ends; never by an older connection of the device.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, assert_never, final

from sqlalchemy import Table

from e2ee.limits import SECOND_MS
from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.base import PresenceState
from transport_adapters.frames import MAX_LEASE, Presence, Typing, Watch
from transport_adapters.server import leases
from transport_adapters.server.buckets import Buckets
from transport_adapters.server.bus import PresenceBus, PresenceChanged, PresenceNews, TypingChanged
from transport_adapters.server.channel import Outbox
from transport_adapters.server.leases import Lease
from transport_adapters.server.ports import ContactPolicy, Database
from transport_adapters.server.settings import RelaySettings
from transport_adapters.server.watching import Watching

_logger = logging.getLogger(__name__)

MARGIN_MS: Final = SECOND_MS
"""A lease is written shorter by this: what watchers are told is right by the end of it, though sweeping takes time."""
_SHORTEST_PAUSE: Final = 0.25
"""Seconds between two sweeps."""
_REREAD_EVERY: Final = 2
"""Renewals between two safety reads, which make up for news that was lost."""

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class Surroundings(NamedTuple):
    """Whom presence asks, and where it writes."""

    database: Database
    table: Table
    contacts: ContactPolicy
    bus: PresenceBus
    now: Callable[[], int]
    settings: RelaySettings
    spawn: Spawn


class _Wish(NamedTuple):
    """What a connection's lease should say."""

    state: PresenceState
    duration_ms: int


_NOTHING: Final = _Wish(PresenceState.OFFLINE, 0)


@final
class PresenceService:
    """The presence of one node's connections. One per relay."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.typing_buckets = Buckets(around.settings.typing_rate)
        self._holders: set[Attendance] = set()
        self._watchers: dict[UserId, set[Watching]] = {}
        self._stale: set[UserId] = set()
        self._reading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe = around.bus.subscribe_presence(self._hear)
        self._graces: set[asyncio.TimerHandle] = set()

    @property
    def watched(self) -> int:
        """How many users are watched from here."""
        return len(self._watchers)

    def watchers(self, user_id: UserId) -> frozenset[Watching]:
        """The connections here that watch a user."""
        return frozenset(self._watchers.get(user_id, ()))

    def start(self) -> None:
        """Begin to renew and to sweep. Idempotent."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(each()) for each in (self._keep_renewing, self._keep_sweeping)]

    async def stop(self) -> None:
        """Hear and do nothing more. The connections have ended before."""
        self._unsubscribe()
        for grace in self._graces:
            grace.cancel()  # other nodes learn of it from their safety read
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    def attend(self, address: DeviceAddress, outbox: Outbox, seen_at: Callable[[], int]) -> "Attendance":
        """Take in a connection that said `hello`. `seen_at` gives its last sign of life, in Unix milliseconds."""
        return Attendance(self, address, outbox, seen_at)

    async def renew(self) -> None:
        """Renew the leases of all connections that gave a sign of life since the last time, in one statement."""
        around = self.around
        due = {each.connection_id: renewal for each in self._holders if (renewal := each.renewal()) is not None}
        if not due:
            return
        expiries = {connection_id: renewal.expires_at for connection_id, renewal in due.items()}
        found = await around.database.write(lambda on: leases.renew(on, around.table, expiries))
        for connection_id, renewal in due.items():
            renewal.attendance.settle(renewal, connection_id in found)

    async def sweep(self) -> int | None:
        """End the leases that have run out, of any node; return when the next one does, in Unix milliseconds."""
        around, now = self.around, self.around.now()
        users = await around.database.write(lambda on: leases.sweep(on, around.table, now))
        for user_id in users:
            around.bus.publish_presence(PresenceChanged(user_id))
        return await around.database.read(lambda on: leases.next_expiry(on, around.table))

    def reread(self) -> None:
        """Read again how all watched users stand."""
        self.read(self._watchers)

    def read(self, users: "set[UserId] | dict[UserId, Any]") -> None:
        """Read how users stand and tell their watchers; what is asked for meanwhile is read together."""
        self._stale.update(users)
        if self._stale and self._reading is None:
            self._reading = self.around.spawn(self._read())

    def watch(self, watching: Watching, before: frozenset[UserId], after: frozenset[UserId]) -> None:
        """Note whom a connection watches from now on. Before the first read: what changes after it is heard of."""
        for user_id in before - after:
            watchers = self._watchers[user_id]
            watchers.discard(watching)
            if not watchers:
                del self._watchers[user_id]
        for user_id in after - before:
            self._watchers.setdefault(user_id, set()).add(watching)
        self.read(set(after - before))

    def hold(self, attendance: "Attendance") -> None:
        """Renew this connection's lease from now on."""
        self._holders.add(attendance)

    def drop(self, attendance: "Attendance") -> None:
        """Renew it no more."""
        self._holders.discard(attendance)

    def publish_later(self, user_id: UserId) -> None:
        """Say that a user may be gone, after the time that a device has to come back."""

        def publish() -> None:
            self._graces.discard(handle)
            self.around.bus.publish_presence(PresenceChanged(user_id))

        handle = asyncio.get_running_loop().call_later(self.around.settings.presence_grace, publish)
        self._graces.add(handle)

    def _hear(self, news: PresenceNews) -> None:
        match news:
            case PresenceChanged(user_id):
                if user_id in self._watchers:
                    self.read({user_id})
            case TypingChanged(sender, recipient, conversation, active):
                for watching in self._watchers.get(sender, ()):
                    if watching.watcher == recipient:
                        watching.note_typing(Typing(sender, active, conversation))
            case _:
                assert_never(news)

    async def _read(self) -> None:
        around = self.around
        try:
            while self._stale:
                users, self._stale = self._stale, set()
                found = await around.database.read(
                    partial(leases.states, table=around.table, users=users, now=around.now())
                )
                for user_id in users:
                    for watching in self._watchers.get(user_id, ()):
                        watching.note(user_id, found.get(user_id, PresenceState.OFFLINE))
        except Exception as error:  # noqa: BLE001 - of the database; the safety read asks again
            _logger.error("Presence could not be read: %s", type(error).__name__)
        finally:
            self._reading = None

    async def _keep_renewing(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(self.around.settings.presence_interval)
            rounds += 1
            try:
                await self.renew()
                if rounds % _REREAD_EVERY == 0:
                    self.reread()
            except Exception as error:  # noqa: BLE001 - of the database; the next round tries again
                _logger.error("Leases could not be renewed: %s", type(error).__name__)

    async def _keep_sweeping(self) -> None:
        while True:
            pause = self.around.settings.presence_interval
            try:
                expiry = await self.sweep()
                if expiry is not None:
                    pause = min(pause, max(_SHORTEST_PAUSE, (expiry - self.around.now()) / SECOND_MS))
            except Exception as error:  # noqa: BLE001 - of the database; the next round tries again
                _logger.error("Leases could not be swept: %s", type(error).__name__)
            await asyncio.sleep(pause)


class Renewal(NamedTuple):
    """A lease that is being renewed, from `seen_at` on up to `expires_at`, both in Unix milliseconds."""

    attendance: "Attendance"
    wish: _Wish
    seen_at: int
    expires_at: int


@final
class Attendance:
    """One connection's part in presence: its lease, and what it watches. Nothing is done before the client asks."""

    def __init__(
        self, service: PresenceService, address: DeviceAddress, outbox: Outbox, seen_at: Callable[[], int]
    ) -> None:
        self.connection_id = secrets.token_bytes(16)
        self._service = service
        self._around = service.around
        self._address = address
        self._outbox = outbox
        self._seen_at = seen_at
        self._wish = self._written = _NOTHING
        self._renewed_at = self._expires_at = 0
        self._writing: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._left = False
        self._watching: Watching | None = None
        self._wanted: frozenset[UserId] = frozenset()
        self._watch_again: asyncio.TimerHandle | None = None

    async def take(self, frame: Presence | Watch | Typing) -> None:
        """Do what a frame says. Too much of it is left out, and never an error: only the newest state matters."""
        if self._left:
            return
        match frame:
            case Presence(state, lease):
                hidden = state is PresenceState.OFFLINE
                self._wish = _NOTHING if hidden else _Wish(state, (lease or MAX_LEASE) * SECOND_MS - MARGIN_MS)
                self._write_soon()
            case Watch(users):
                self._wanted = frozenset(users)
                if self._watch_again is None:
                    self._watch()
            case Typing():
                await self._type(frame)
            case _:
                assert_never(frame)

    def leave(self) -> None:
        """The connection has ended: its lease ends now."""
        self._left = True
        self._wish = _NOTHING
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._watch_again is not None:
            self._watch_again.cancel()
        if self._watching is not None:
            self._service.watch(self._watching, self._watching.users, frozenset())
            self._watching.stop()
        self._write_soon()

    # --- what the service asks

    def renewal(self) -> "Renewal | None":
        """Say until when the lease should run; None if the client gave no sign of life since it was last written."""
        seen_at = self._seen_at()
        if self._written == _NOTHING or seen_at <= self._renewed_at:
            return None
        return Renewal(self, self._written, seen_at, seen_at + self._written.duration_ms)

    def settle(self, renewal: "Renewal", found: bool) -> None:
        """Take in that the lease was renewed, or was not there any more."""
        if self._writing is not None or self._written is not renewal.wish:
            return  # overtaken by a write of our own
        if found:
            self._renewed_at, self._expires_at = renewal.seen_at, renewal.expires_at
            return
        self._written = _NOTHING
        if self._expires_at <= self._around.now():
            self._write_soon()  # it had run out meanwhile: a new one
        else:
            self._wish = _NOTHING  # another connection of the device has taken it over, and may have ended it
            self._service.drop(self)

    # --- inside

    def _watch(self) -> None:
        """Watch whom the client asked for last. Not again within the grace period: each name costs a question."""
        self._watch_again = None
        if self._watching is not None and self._watching.users == self._wanted:
            return
        if self._watching is None:
            self._watching = Watching(self._address.user_id, self._outbox, self._around.contacts, self._around.now)
        before = self._watching.users
        self._watching.restrict(self._wanted)
        self._service.watch(self._watching, before, self._wanted)
        self._watch_again = asyncio.get_running_loop().call_later(self._around.settings.presence_grace, self._watch)

    async def _type(self, frame: Typing) -> None:
        """Pass on that somebody writes, if they let themselves be seen at all."""
        sender = self._address.user_id
        if self._wish == _NOTHING or self._service.typing_buckets.take(self._address, self._around.now()) > 0:
            return
        try:
            allowed = await self._around.contacts.may_contact(sender, frame.user)
        except Exception as error:  # noqa: BLE001 - of the host's rules: what they did not allow is not passed on
            _logger.error("Typing could not be passed on: %s", type(error).__name__)
            return
        if allowed:
            news = TypingChanged(sender, frame.user, frame.conversation, frame.active)
            self._around.bus.publish_presence(news)

    def _write_soon(self) -> None:
        """Bring the lease up to what is wished: at once, but not again within the grace period, except to end it."""
        if self._writing is None and self._again is None and self._wish != self._written:
            self._writing = self._around.spawn(self._write())

    async def _write(self) -> None:
        """One write at a time, so that the last one wins."""
        around, wish, user_id = self._around, self._wish, self._address.user_id
        try:
            if wish == _NOTHING:
                self._service.drop(self)
                await around.database.write(
                    partial(leases.release, table=around.table, connection_id=self.connection_id)
                )
            else:
                self._renewed_at = self._seen_at()
                self._expires_at = self._renewed_at + wish.duration_ms
                lease = Lease(self._address, self.connection_id, wish.state, self._expires_at)
                await around.database.write(partial(leases.claim, table=around.table, lease=lease))
                self._service.hold(self)
            self._written = wish
        except Exception as error:  # noqa: BLE001 - of the database; a lease runs out by itself
            _logger.error("A lease could not be written: %s", type(error).__name__)
            failed = True
        else:
            failed = False
            if self._left and wish == _NOTHING:
                self._service.publish_later(user_id)
            else:
                around.bus.publish_presence(PresenceChanged(user_id))
        finally:
            self._writing = None
        if not self._left:
            self._again = asyncio.get_running_loop().call_later(around.settings.presence_grace, self._write_again)
        elif not failed:
            self._write_soon()

    def _write_again(self) -> None:
        self._again = None
        self._write_soon()
