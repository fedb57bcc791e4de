"""A small world for tests: devices, an honest directory, and a network whose faults are drawn from a seed.

Owns: the simulated server and network, the clock and the randomness of everybody in it, snapshots of stores.
Does not know about: HTTP, sockets, threads. The devices are real: `Messenger` on `MemoryStore`, nothing is mocked.

    world = World()
    alice, bob = world.device("alice"), world.device("bob")
    alice.send(bob, "hello")
    world.deliver()
    assert bob.read() == ["hello"]

`world.settle()` lets all devices do what is due by itself, and delivers, until they rest.

Everything is reproducible but the randomness inside ML-KEM encapsulation, which the library draws itself; so no test
may depend on the order of two transcripts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, NamedTuple

from e2ee.errors import DeviceListStaleError
from e2ee.limits import DEVICE_LIST_LIFETIME_MS
from e2ee.messenger import Messenger, Outcome, Reception
from e2ee.notices import Notice
from e2ee.ports import Record, Store, Table
from e2ee.prekey_supply import PreKeyPublication, ServerCounts
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.rollback import RelayStatement
from e2ee.sending import Draft
from e2ee.session import Session
from e2ee.stores import records, session_records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.message_records import OutboxEntry
from e2ee.tending import Tended
from e2ee.wire.content import Content, ContentKind, decode_application, encode_application
from e2ee.wire.device_list import DeviceList, ListedDevice, SignedDeviceList, ordered
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, EnvelopeId, MessageId, UserId, parse_user_id
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, PreKeyBundle, SignedPreKey

START: Final = 1_800_000_000_000
"""The world's first moment, Unix milliseconds."""

Snapshot = dict[Table, tuple[Record, ...]]
"""Every record of a store."""


class World:
    """Holds what all devices share: the time, the randomness, the directory, the network."""

    def __init__(self, seed: int | str = 0) -> None:
        self.now = START
        self.random = Random(seed)
        self.directory = Directory()
        self.network = Network(self.random)
        self.devices: dict[DeviceAddress, Device] = {}

    def device(
        self,
        user: str,
        *,
        one_time_prekeys: bool = True,
        listed: bool = True,
        store: Store | None = None,
        skew: int = 0,
    ) -> "Device":
        """Make a user with one device and publish its list. Prekeys follow when the first bundle is claimed.

        `listed=False` keeps the list out of the directory: a second "first device" of a user who has one already.
        `skew` is what the device's clock is ahead, in milliseconds.
        """
        store = store or MemoryStore()

        def clock() -> int:
            return self.now + skew

        messenger = Messenger.create(store, parse_user_id(user), rng=self.random.randbytes, clock=clock)
        device = Device(self, store, messenger, one_time_prekeys)
        device.clock = clock
        self.devices[device.address] = device
        if listed:
            self.directory.lists[device.user_id].append(messenger.own_device_list().signed)
        return device

    def further_device(self, first: "Device", *, store: Store | None = None, skew: int = 0) -> "Device":
        """Add a device to the account of one that exists, and publish the list; other devices of the user learn it."""
        store, random = store or MemoryStore(), self.random.randbytes

        def clock() -> int:
            return self.now + skew

        account = replace(
            first.messenger.account,
            address=DeviceAddress(first.user_id, DeviceId(random(16))),
            device_signing_key_pair=DeviceSigningKeyPair.generate(random),
            identity_key_pair=IdentityKeyPair.generate(random),
        )
        party = account.party
        entry = ListedDevice(account.address.device_id, party.device_signing_key, party.identity_key)
        first.change_list(*first.messenger.own_device_list().content.devices, entry)
        with store.write() as tx:
            records.save_account(tx, account)
            records.save_own_device_list(tx, first.messenger.own_device_list())
        device = Device(self, store, Messenger.open(store, rng=random, clock=clock), one_time_prekeys=False)
        device.clock = clock
        device.connect()
        self.devices[device.address] = device
        return device

    def clock(self) -> int:
        return self.now

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    def deliver(self, faults: "Faults | None" = None) -> list[Reception]:
        """Bring every envelope in flight to its recipient, in order unless `faults` say otherwise."""
        return [self.devices[recipient].receive(envelope) for recipient, envelope in self.network.take(faults)]

    def settle(self, rounds: int = 20) -> list[Notice]:
        """Let all devices do what is due, and deliver, until nothing is left that does not wait for time to pass."""
        notices: list[Notice] = []
        for _ in range(rounds):
            for device in self.devices.values():
                notices += device.tend().notices
            if not self.network.in_flight:
                return notices
            for reception in self.deliver():
                notices += reception.notices
        raise AssertionError("the devices never come to rest")


class Faults(NamedTuple):
    """How badly the network behaves; probabilities for each envelope."""

    loss: float = 0.0
    duplicates: float = 0.0
    tampering: float = 0.0
    reorders: bool = False


class Network:
    """Envelopes on their way."""

    def __init__(self, random: Random) -> None:
        self.in_flight: list[bytes] = []
        self.accepted: dict[DeviceAddress, int] = defaultdict(int)
        """The highest n of each device, as a relay remembers it."""
        self._random = random

    def accept(self, sender: DeviceAddress, entry: OutboxEntry) -> None:
        """Put an envelope on its way."""
        self.accepted[sender] = max(self.accepted[sender], entry.counter)
        self.in_flight.append(entry.envelope)

    def take(self, faults: Faults | None = None) -> Iterator[tuple[DeviceAddress, bytes]]:
        """Take all envelopes out of the network, as its faults have left them."""
        arriving, self.in_flight = self.in_flight, []
        faults = faults or Faults()
        if faults.reorders:
            self._random.shuffle(arriving)
        for encoded in arriving:
            recipient = Envelope.decode(encoded).recipient
            if self._random.random() < faults.tampering:
                yield recipient, flip(encoded, self._random.randrange(8 * len(encoded)))
            if self._random.random() < faults.loss:
                continue
            yield recipient, encoded
            if self._random.random() < faults.duplicates:
                yield recipient, encoded


@dataclass
class Published:
    """What the directory holds of one device."""

    signed_prekey: SignedPreKey
    last_resort: KemPreKey
    one_time: list[OneTimePreKey] = field(default_factory=list)
    one_time_kem: list[KemPreKey] = field(default_factory=list)


class Directory:
    """An honest key server: publishes lists and hands out each one-time prekey once."""

    def __init__(self) -> None:
        self.lists: dict[UserId, list[SignedDeviceList]] = defaultdict(list)
        self.prekeys: dict[DeviceAddress, Published] = {}

    def publish(self, address: DeviceAddress, publication: PreKeyPublication) -> None:
        """Take in a publication."""
        held = self.prekeys.get(address)
        if held is None:
            assert publication.signed_prekey is not None
            assert publication.last_resort is not None
            held = self.prekeys[address] = Published(publication.signed_prekey, publication.last_resort)
        held.signed_prekey = publication.signed_prekey or held.signed_prekey
        held.last_resort = publication.last_resort or held.last_resort
        held.one_time += publication.one_time_prekeys
        held.one_time_kem += publication.one_time_kem_prekeys

    def counts(self, address: DeviceAddress) -> ServerCounts:
        held = self.prekeys.get(address)
        return ServerCounts(len(held.one_time), len(held.one_time_kem)) if held else ServerCounts(0, 0)

    def served(self, user_id: UserId) -> list[SignedDeviceList]:
        """Return the lists of a user, oldest first."""
        return self.lists[user_id]

    def claim(self, address: DeviceAddress) -> PreKeyBundle:
        """Hand out a bundle; falls back to the last-resort key and no one-time key when those have run out."""
        held = self.prekeys[address]
        one_time = held.one_time.pop(0) if held.one_time else None
        kem = held.one_time_kem.pop(0) if held.one_time_kem else held.last_resort
        return PreKeyBundle(address, held.signed_prekey, one_time, kem)


class LyingDirectory(Directory):
    """A key server that serves what a script makes of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.change_lists: Callable[[UserId, list[SignedDeviceList]], list[SignedDeviceList]] = lambda _, lists: lists
        self.change_bundle: Callable[[PreKeyBundle], PreKeyBundle] = lambda bundle: bundle

    def served(self, user_id: UserId) -> list[SignedDeviceList]:
        return self.change_lists(user_id, super().served(user_id))

    def claim(self, address: DeviceAddress) -> PreKeyBundle:
        return self.change_bundle(super().claim(address))


class Device:
    """One device and what its application would do around `Messenger`."""

    def __init__(self, world: World, store: Store, messenger: Messenger, one_time_prekeys: bool) -> None:
        self.world, self.store, self.messenger = world, store, messenger
        self.address = messenger.address
        self.user_id = messenger.address.user_id
        self.clock = world.clock
        self._one_time_prekeys = one_time_prekeys

    def publish(self) -> PreKeyPublication:
        """Give the directory the prekeys that are due."""
        # 25 left is the least for which no batch of one-time keys is made, which would be the slowest part of a test.
        counts = self.world.directory.counts(self.address) if self._one_time_prekeys else ServerCounts(25, 25)
        publication = self.messenger.registration.due_prekeys(counts)
        self.world.directory.publish(self.address, publication)
        self.messenger.registration.prekeys_published(publication.prekey_ids)
        return publication

    def bundle(self) -> PreKeyBundle:
        """Claim one of this device's bundles from the directory."""
        if self.address not in self.world.directory.prekeys:
            self.publish()
        return self.world.directory.claim(self.address)

    def change_list(self, *devices: ListedDevice) -> None:
        """Sign the next list of this user, publish it, and let all devices of the user know it."""
        last = self.messenger.own_device_list().content
        changed = self.messenger.account.sign_device_list(
            DeviceList(
                user_id=last.user_id,
                account_key=last.account_key,
                seq=last.seq + 1,
                previous_hash=last.hash(),
                created_at=self.world.now,
                expires_at=self.world.now + DEVICE_LIST_LIFETIME_MS,
                devices=ordered(devices),
            )
        )
        self.world.directory.lists[self.user_id].append(changed.signed)
        for device in self.world.devices.values():
            if device.user_id == self.user_id:
                device.messenger.learn_device_lists(self.user_id, [changed.signed])

    def meet(self, peer: "Device") -> tuple[Notice, ...]:
        """Fetch the peer's device lists."""
        return self.messenger.learn_device_lists(peer.user_id, self.world.directory.served(peer.user_id))

    def start_session(self, peer: "Device") -> Session:
        """Fetch lists, claim a bundle and start a session, even if there is one already."""
        self.meet(peer)
        return self.messenger.start_session(peer.bundle())

    def tend(self) -> Tended:
        """Do what is due as an application does: fetch lists, start sessions, post what was queued."""
        tended = self.messenger.tend()
        if tended.lacks:
            for user_id in tended.stale_lists:
                self.messenger.learn_device_lists(user_id, self.world.directory.served(user_id))
            for address in tended.sessions_wanted:
                self.messenger.start_session(self.world.devices[address].bundle())
            again = self.messenger.tend()
            tended = replace(again, notices=tended.notices + again.notices)
        self.post()
        return tended

    def post(self) -> None:
        """Hand the whole outbox to the network."""
        for entry in self.messenger.outbox.entries():
            self.world.network.accept(self.address, entry)
            self.messenger.outbox.settle([entry.envelope_id])

    def connect(self) -> tuple[Notice, ...]:
        """Come online: hear what the relay remembers of us."""
        return self.messenger.delivery.note_connected(RelayStatement(1, 0, self.world.network.accepted[self.address]))

    def encrypt(self, peer: "Device", data: bytes | str, kind: int = ContentKind.APPLICATION) -> bytes:
        """Encrypt one message, starting a session if there is none, and return the envelope instead of posting it.

        Bodies of kinds other than APPLICATION are sent as they are.
        """
        try:
            missing = self.messenger.missing_sessions(peer.user_id)
        except DeviceListStaleError:
            self.meet(peer)
            missing = self.messenger.missing_sessions(peer.user_id)
        for address in missing:
            self.messenger.start_session(self.world.devices[address].bundle())
        raw = data.encode() if isinstance(data, str) else data
        body = encode_application(data) if kind == ContentKind.APPLICATION else raw
        queued = self.messenger.queue(peer.user_id, Draft(kind, body, ConversationId(""), Lane.CHAT, ttl=3600))
        self.messenger.outbox.settle(entry.envelope_id for entry in queued.entries)
        accepted = self.world.network.accepted
        accepted[self.address] = max(accepted[self.address], queued.entries[-1].counter)
        return queued.entries[0].envelope

    def send(self, peer: "Device", data: bytes | str) -> bytes:
        """Encrypt one message and hand it to the network; returns the envelope."""
        envelope = self.encrypt(peer, data)
        self.world.network.in_flight.append(envelope)
        return envelope

    def seal(self, peer: "Device", content: bytes, session: Session | None = None) -> bytes:
        """As a hostile peer: encrypt bytes that need not be a content, on the sending session or on a given one."""
        if session is None:
            session = self.sending_session(peer)
        advanced, body = session.encrypt(content, self.world.now, self.world.random.randbytes)
        with self.store.write() as tx:
            session_records.save_session(tx, advanced)
        return self.wrap(peer, body)

    def wrap(self, peer: "Device", body: bytes) -> bytes:
        """Put a body into an envelope from this device."""
        envelope_id = EnvelopeId(self.world.random.randbytes(16))
        return Envelope(envelope_id, self.address, peer.address, Lane.CHAT, 3600, body).encode()

    def receive(self, envelope: bytes) -> Reception:
        return self.messenger.receive(envelope)

    def read(self) -> list[bytes | str]:
        """Take all application data that waits, as an application does."""
        waiting = self.messenger.inbound()
        for message in waiting:
            self.messenger.confirm(message.number)
        return [decode_application(each.content.body) for each in waiting if each.content.kind == 1]

    def sessions(self, peer: "Device") -> list[Session]:
        """Return the sessions with a device, highest first."""
        with self.store.read() as tx:
            return session_records.sessions_with(tx, peer.address)

    def forget_sessions(self, peer: "Device") -> None:
        """Delete every session with a device."""
        with self.store.write() as tx:
            for session in session_records.sessions_with(tx, peer.address):
                session_records.delete_session(tx, session)

    def sending_session(self, peer: "Device") -> Session:
        with self.store.read() as tx:
            session = session_records.sending_session(tx, peer.address, self.clock())
        assert session is not None
        return session

    def session_of(self, peer: "Device", session_id: bytes) -> Session:
        return next(session for session in self.sessions(peer) if session.session_id == session_id)

    def restart(self) -> None:
        """Lose everything that is not in the store."""
        self.messenger = Messenger.open(self.store, rng=self.world.random.randbytes, clock=self.clock)

    def snapshot(self) -> Snapshot:
        """Return every record of the store."""
        with self.store.read() as tx:
            return {table: tuple(tx.scan(table)) for table in Table}

    def restore(self, snapshot: Snapshot) -> None:
        """Put the store back to a snapshot, as restoring an old copy of its file does."""
        with self.store.write() as tx:
            for table in Table:
                present = tuple(tx.scan(table))
                if present == snapshot[table]:
                    continue
                for record in present:
                    tx.delete(table, record.key)
                for record in snapshot[table]:
                    tx.put(table, record.key, record.value, group=record.group, order=record.order)


def talk(first: Device, second: Device) -> None:
    """Exchange one message each way, so that the session is established on both ends."""
    for sender, recipient in ((first, second), (second, first)):
        assert recipient.receive(sender.encrypt(recipient, "hello")).outcome is Outcome.STORED
        recipient.read()


def flip(data: bytes, bit: int) -> bytes:
    """Return the bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def changed(envelope: bytes, **fields: object) -> bytes:
    """Return an encoded envelope with some of its fields replaced."""
    return replace(Envelope.decode(envelope), **fields).encode()  # type: ignore[arg-type]  # names and types are the test's


def without(snapshot: Snapshot, *tables: Table) -> Snapshot:
    """Return a snapshot without some tables, for what a failure may change."""
    return {table: rows for table, rows in snapshot.items() if table not in tables}


@contextmanager
def unchanged(device: Device, *allowed: Table) -> Iterator[None]:
    """Assert that the block changes no record of the device's store, `allowed` tables excepted.

    Who may record an envelope as unreadable may also note to ask for it.
    """
    if Table.UNREADABLE in allowed:
        allowed = (*allowed, Table.HEALING)
    before = without(device.snapshot(), *allowed)
    yield
    assert without(device.snapshot(), *allowed) == before


def content_from(device: Device, peer: Device, **fields: object) -> Content:
    """Return a well-formed content from a device to a peer, some of its fields replaced."""
    with device.store.read() as tx:
        own_list = records.own_device_list(tx).position
        contact = records.load_contact(tx, peer.user_id)
    assert contact is not None
    whole = Content(
        message_id=MessageId(device.world.random.randbytes(16)),
        kind=ContentKind.APPLICATION,
        conversation_id=ConversationId(""),
        sent_at=device.world.now,
        sender_list=own_list,
        recipient_list=contact.device_list.position,
        body=encode_application("hello"),
    )
    return replace(whole, **fields)  # type: ignore[arg-type]  # names and types are the test's
