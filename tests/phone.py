"""A device with its application, online or not, and the books that say what must have reached whom.

Owns: what an application and its connection do around `Device`; which messages may be missing, each with the reason.
Does not know about: what is tested with it.

What may be missing at the end is written down when it happens. Nothing else may:
* the relay dropped the message, or the request for it (its ttl is over);
* a store was put back: its device forgot what it sent since, what it acknowledged since without having shown it, and
  perhaps the contact from whom something unreadable came (section 12.7);
* a store was put back twice within an hour: until the next reset, keys that were used serve again (section 12.7);
* the limits on asking and sending again were reached (protocol.md, section 11): it was asked for three times, or its
  sender was told that it is not sent again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from e2ee.account import PreKeyKind, generate_prekey
from e2ee.errors import DeviceListStaleError, StoreUnavailableError
from e2ee.limits import MAX_RETRY_ASKS
from e2ee.messenger import Outcome, Reception
from e2ee.notices import AskedAgain, MessageNotResent, Notice, StoreRolledBack
from e2ee.prekey_supply import replace_all
from e2ee.stores.message_records import highest_committed, highest_released
from e2ee.stores.records import fresh_prekey_id, load_prekey, own_device_list, save_own_device_list, save_prekey
from e2ee.stores.session_records import save_session, sessions_with
from e2ee.wire.content import decode_application
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, MessageId
from tests.breaking_store import BreakingStore
from tests.relay import Relay, Row
from tests.world import Device, Snapshot, World

ONE_TIME_BATCH: Final = 2


class Sent(NamedTuple):
    """A message that a device has promised to deliver."""

    sender: DeviceAddress
    recipient: DeviceAddress
    text: str


@dataclass
class Books:
    """What everybody said, and what became of it."""

    sent: dict[MessageId, Sent] = field(default_factory=dict)
    shown: set[MessageId] = field(default_factory=set)
    excused: dict[MessageId, str] = field(default_factory=dict)
    refused: set[MessageId] = field(default_factory=set)
    asked: Counter[EnvelopeId] = field(default_factory=Counter)

    def excuse(self, message_id: MessageId, reason: str) -> None:
        if message_id in self.sent and message_id not in self.shown:
            self.excused.setdefault(message_id, reason)

    def missing(self) -> list[Sent]:
        """Return what was neither shown nor has an excuse."""
        return [sent for each, sent in self.sent.items() if each not in self.shown and each not in self.excused]


class Copy(NamedTuple):
    """An old copy of a store, with what its device had done by then."""

    snapshot: Snapshot
    confirmed: frozenset[MessageId]
    acked: frozenset[int]
    sent: int


class Phone:
    """A device, its application, its connection."""

    def __init__(self, world: World, relay: Relay, books: Books, name: str) -> None:
        self.store = BreakingStore()
        self.device: Device = world.device(name, one_time_prekeys=False, store=self.store)
        self.world, self.relay, self.books = world, relay, books
        self.address, self.user_id = self.device.address, self.device.user_id
        self.online = self.exposed = False
        self.confirmed: frozenset[MessageId] = frozenset()
        """What the application has confirmed in this history of the store."""
        self.device.publish()
        self.copies = [self._copy()]

    # --- the connection --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Come online, unless we are: hear the relay's statement before anything is sent, publish what is due."""
        if not self.online:
            self.say_hello()
            self.online = True
            self.device.publish()
            self._replace_prekeys_that_are_not_held()

    def say_hello(self) -> None:
        """Hear what the relay remembers of us."""
        statement = self.relay.statement(self.address)
        acked = statement.acked_epoch, statement.acked_seq
        with self.store.read() as tx:
            behind = statement.accepted_counter > highest_released(tx) or acked > highest_committed(tx)
        notices = self.device.messenger.delivery.note_connected(statement)
        self.exposed = self.exposed or behind
        self.note(notices)

    def disconnect(self) -> None:
        self.online = False

    def restart(self) -> None:
        """The process ends and begins anew."""
        self.online = False
        self.device.restart()

    def set_clock(self, skew: int) -> None:
        """Set the clock of the device; it reads it when it is started."""
        self.device.clock = lambda: self.world.now + skew
        self.restart()

    def tend(self) -> int | None:
        """Do what is due; return after how many milliseconds something falls due by itself."""
        self.connect()
        tended = self.device.tend()
        self.note(tended.notices)
        self.device.publish()
        return tended.again_in

    def waiting(self) -> list[Row]:
        return self.relay.waiting(self.address)

    def take(self, row: Row, *, acknowledge: bool = True) -> Outcome | None:
        """Let the relay deliver a row; return what became of it, None if the relay had dropped it."""
        self.connect()
        outcome = None
        if row.envelope is None:
            self.device.messenger.delivery.note_dropped(row.position, row.sender)
        else:
            outcome = self.hear(row, self.device.messenger.receive(row.envelope, row.position))
        row.acked = row.acked or acknowledge
        return outcome

    def hear(self, row: Row, reception: Reception) -> Outcome:
        self.note(reception.notices)
        if reception.outcome is Outcome.UNREADABLE:
            self.books.refused.add(row.message_id)
            if self.device.messenger.contact(row.sender.user_id) is None:
                self.books.excuse(row.message_id, "unreadable, of a stranger")
        return reception.outcome

    def note(self, notices: tuple[Notice, ...]) -> None:
        """Keep the books: what will not be asked for or sent again any more is excused."""
        for notice in notices:
            if isinstance(notice, StoreRolledBack):
                self.exposed = False
            elif isinstance(notice, MessageNotResent):
                self.books.excuse(notice.message_id, "not sent again")
            elif isinstance(notice, AskedAgain):
                self.books.asked.update(notice.envelope_ids)
                for row in self.relay.inboxes[self.address]:
                    if self.books.asked[row.envelope_id] >= MAX_RETRY_ASKS:
                        self.books.excuse(row.message_id, "asked for three times")

    # --- the application -------------------------------------------------------------------------------------

    def reach(self, peer: "Phone") -> None:
        """See to it that we can send to a peer, coming online if it takes a device list or a session."""
        messenger = self.device.messenger
        try:
            if messenger.contact(peer.user_id) is not None and not messenger.missing_sessions(peer.user_id):
                return
        except DeviceListStaleError:
            pass
        self.connect()
        self.device.meet(peer.device)
        for address in messenger.missing_sessions(peer.user_id):
            messenger.start_session(self.world.devices[address].bundle())

    def say(self, peer: "Phone", text: str) -> MessageId:
        """Queue a message."""
        self.reach(peer)
        message_id = self.device.messenger.send(peer.user_id, text).message_id
        self.books.sent[message_id] = Sent(self.address, peer.address, text)
        if self.exposed:
            self.books.excuse(message_id, "sent within an hour of the reset before")
        return message_id

    def heal_now(self, peer: "Phone") -> None:
        """Ask for new post-quantum secrets."""
        self.reach(peer)
        self.device.messenger.heal_now(peer.user_id)

    def start_session(self, peer: "Phone") -> None:
        self.connect()
        self.device.start_session(peer.device)

    def read(self) -> None:
        """Show what came in and confirm it: genuine, for us, and never a second time."""
        for message in self.device.messenger.inbound():
            message_id, content = message.content.message_id, message.content
            sent = Sent(message.sender, self.address, str(decode_application(content.body)))
            assert self.books.sent[message_id] == sent
            assert message_id not in self.confirmed, "shown twice"
            self.books.shown.add(message_id)
            self.device.messenger.confirm(message.number)
            self.confirmed |= {message_id}

    # --- what goes wrong -------------------------------------------------------------------------------------

    def crash(self, puts: int, operation: Callable[[], object]) -> None:
        """Let an operation of one transaction die after some writes, if it has that many; it has changed nothing."""
        before = self.device.snapshot()
        self.store.puts_left = puts
        try:
            operation()
        except StoreUnavailableError:
            assert self.device.snapshot() == before
        finally:
            self.store.puts_left = None
        self.restart()

    def archive_sessions(self, peer: "Phone") -> None:
        """End sending on all sessions with a device, whose own do not know."""
        with self.store.write() as tx:
            for session in sessions_with(tx, peer.address):
                save_session(tx, session.mark_dead())

    # --- the owner -------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep a copy of the store."""
        self.copies.append(self._copy())

    def put_back(self, copy: Copy) -> None:
        """Replace the store by an old copy. What was shown since may be shown again, once in this new history."""
        for row in self.relay.inboxes[self.address]:
            if row.acked and row.seq not in copy.acked:
                self.books.excuse(row.message_id, "acknowledged before the rollback")
        for message_id in list(self.books.sent)[copy.sent :]:
            if self.books.sent[message_id].sender == self.address:
                self.books.excuse(message_id, "sent before the rollback")
        self.device.restore(copy.snapshot)
        self.confirmed = copy.confirmed
        self.restart()

    def supply_one_time_prekeys(self) -> None:
        """Publish a few one-time prekeys; a full batch would be the slowest part of a test."""
        self.connect()
        random = self.world.random.randbytes
        with self.store.write() as tx:
            for kind in (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM):
                for _ in range(ONE_TIME_BATCH):
                    save_prekey(tx, generate_prekey(kind, fresh_prekey_id(tx, random), self.device.clock(), random))
        self.device.publish()

    def lost_one_time_prekeys(self) -> int:
        """Count what the directory still hands out and this store, put back, does not hold: each costs a session."""
        offered = self.world.directory.prekeys[self.address]
        ids = [each.prekey_id for each in offered.one_time] + [each.prekey_id for each in offered.one_time_kem]
        with self.store.read() as tx:
            return sum(load_prekey(tx, prekey_id) is None for prekey_id in ids)

    def renew_list(self) -> None:
        """Publish the next link of our chain, which peers hear of from our messages, unless ours was put back."""
        self.connect()
        published = self.world.directory.lists[self.user_id]
        with self.store.write() as tx:
            newest = own_device_list(tx)
            if newest.signed == published[-1]:
                content = newest.content
                link = replace(content, seq=content.seq + 1, previous_hash=content.hash())
                renewed = self.device.messenger.account.sign_device_list(link)
                save_own_device_list(tx, renewed)
                published.append(renewed.signed)

    def _replace_prekeys_that_are_not_held(self) -> None:
        """Do now what a device does within a week: a copy from before the last publication, after which nothing was
        sent or acknowledged, shows in nothing that the relay states (protocol.md section 12.7).
        """
        offered = self.world.directory.prekeys[self.address]
        with self.store.write() as tx:
            if any(load_prekey(tx, each.prekey_id) is None for each in (offered.signed_prekey, offered.last_resort)):
                replace_all(tx, self.device.clock())
        self.device.publish()

    def _copy(self) -> Copy:
        return Copy(self.device.snapshot(), self.confirmed, self.relay.acked(self.address), len(self.books.sent))
