"""The life of two devices, told one commit at a time: every call of `Messenger` that writes, in a sensible order.

Owns: the acts and their order, the relay between the devices, what must hold at the end.
Does not know about: what happens to a device in the middle of an act. Whoever performs the acts kills or starves it,
and performs the act again.

    story = Story(directory)
    story.tell(lambda act: act.perform())
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from e2ee.account import PreKeyKind
from e2ee.errors import AccountKeyChangedError, DeviceListForkError, E2EEError
from e2ee.history_book import FOREVER, EntryState
from e2ee.limits import DAY_MS, LATE_ENVELOPE_MS, OUTBOX_LIFETIME_MS, PQ_ANSWER_MS
from e2ee.messenger import DeliveryPosition
from e2ee.ports import Table
from e2ee.prekey_supply import PreKeyPublication, ServerCounts
from e2ee.rollback import RelayStatement
from e2ee.stores import history_records, records
from e2ee.stores.message_records import OutboxEntry
from e2ee.stores.sqlite import SqliteStore
from e2ee.stores.trust_records import Decision
from e2ee.wire.content import ContentKind, ReceiptType, decode_application
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import EnvelopeId, MessageId, PreKeyId
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, SignedPreKey
from tests.store_files import KEY
from tests.world import Device, World

Acts = Generator["Act", Any, None]
_RESTS: Final = 12


@dataclass(frozen=True)
class Act:
    """One call of a device's messenger, or of what is reached through it."""

    device: Device
    method: str
    arguments: tuple[object, ...]
    raises: type[Exception] | None = None

    def perform(self) -> Any:
        """Make the call; return its result."""
        try:
            return attrgetter(self.method)(self.device.messenger)(*self.arguments)
        except (E2EEError, ValueError) as error:
            if self.raises is None or not isinstance(error, self.raises):
                raise
            return None


Kind = tuple[str, frozenset[Table]]
"""What tells acts apart: the method, and the tables in which it changes something."""


def rehearse(directory: Path) -> list[Kind]:
    """Tell the whole story without disturbing it; return the kind of each act."""
    kinds: list[Kind] = []

    def perform(act: Act) -> Any:
        before = act.device.snapshot()
        result = act.perform()
        after = act.device.snapshot()
        kinds.append((act.method, frozenset(table for table in Table if before[table] != after[table])))
        return result

    Story(directory).tell(perform)
    return kinds


def act(device: Device, method: str, *arguments: object) -> Act:
    return Act(device, method, arguments)


@dataclass
class Inbox:
    """What an honest relay knows of one device."""

    waiting: list[tuple[int, OutboxEntry]]
    head: int = 0
    accepted: int = 0
    """The highest n of this device."""
    acked: int = 0

    def statement(self) -> RelayStatement:
        return RelayStatement(1, 0, self.accepted, 1 if self.acked else 0, self.acked)


class Story:
    """Alice and Bob, each on a store in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.world, self._directory = World("whole life"), directory
        self.alice, self.bob = self._device("alice"), self._device("bob")
        self.inboxes: dict[Device, Inbox] = defaultdict(lambda: Inbox([]))
        self.sent: set[MessageId] = set()
        """Messages for which `send` returned an id, and that the relay did not drop."""
        self.shown: Counter[MessageId] = Counter()
        self._offered: dict[tuple[Device, PreKeyId], SignedPreKey | OneTimePreKey | KemPreKey] = {}

    def _device(self, user: str) -> Device:
        return self.world.device(user, store=SqliteStore.create(self.path(user), key=KEY))

    def path(self, user: str) -> Path:
        return self._directory / f"{user}.db"

    def reopen(self, device: Device) -> None:
        """Start a device anew, from its file alone."""
        device.store.close()
        device.store = SqliteStore.open(self.path(device.user_id), key=KEY)
        device.restart()

    def tell(self, perform: Callable[[Act], Any]) -> None:
        """Tell it: let each act be performed, check what must hold at the end, close the stores."""
        acts, result = self._acts(), None
        try:
            while True:
                result = perform(acts.send(result))
        except StopIteration:
            self._check()
        finally:
            for device in (self.alice, self.bob):
                device.store.close()

    def _acts(self) -> Acts:
        for device in (self.alice, self.bob):
            device.messenger.history.set_retention(FOREVER)
        # Alice first: her publication is of the same kind as Bob's, and a hundred keys smaller.
        yield from self._supply(self.alice, ServerCounts(25, 25))
        yield from self._supply(self.bob, ServerCounts(24, 24))
        yield from self._first_contact()
        yield from self._overtaking_and_loss()
        yield from self._post_quantum_epochs()
        yield from self._lost_session()
        yield from self._refusals()
        yield from self._refused()
        yield from self._changed_account_key()
        yield from self._account_reset()
        yield from self._rollback()
        yield from self._housekeeping()
        for sender, recipient in ((self.alice, self.bob), (self.bob, self.alice)):
            yield from self._say(sender, recipient, "in the end")
            yield from self._bring(sender, recipient)
        yield from self._read_marks()

    def _check(self) -> None:
        assert self.sent <= self.shown.keys(), "nothing accepted is lost"
        assert set(self.shown.values()) == {1}, "nothing is shown twice"
        assert self.alice.sending_session(self.bob).session_id == self.bob.sending_session(self.alice).session_id
        for device in (self.alice, self.bob):
            assert device.messenger.status().outbox == device.messenger.status().inbound == 0
        self._check_histories()

    def _check_histories(self) -> None:
        for device, peer in ((self.alice, self.bob), (self.bob, self.alice)):
            entries = device.messenger.history.messages(peer.user_id, limit=1_000)
            kept = {entry.message_id for entry in entries}
            assert len(entries) == len(kept), "nothing is in a history twice"
            assert self.sent <= kept, "nothing accepted lacks in a history"
            unread = [entry for entry in entries if entry.author == peer.user_id and entry.state is EntryState.NEW]
            (conversation,) = (each for each in device.messenger.history.conversations() if each.peer == peer.user_id)
            assert conversation.unread == len(unread)

    # --- chapters --------------------------------------------------------------------------------------------

    def _supply(self, device: Device, counts: ServerCounts) -> Acts:
        yield act(device, "registration.mark_registered")
        before = yield act(device, "registration.next_assertion_counter")
        after = yield act(device, "registration.next_assertion_counter")
        assert after > before
        publication = yield act(device, "registration.due_prekeys", counts)
        self._offer(device, publication)
        self._offer(device, device.messenger.registration.due_prekeys(counts))
        yield act(device, "registration.prekeys_published", publication.prekey_ids)
        self._spare(device)

    def _offer(self, device: Device, publication: PreKeyPublication) -> None:
        self.world.directory.publish(device.address, publication)
        several = publication.signed_prekey, publication.last_resort
        for prekey in (*several, *publication.one_time_prekeys, *publication.one_time_kem_prekeys):
            if prekey is not None:
                assert self._offered.setdefault((device, prekey.prekey_id), prekey) == prekey, (
                    "no prekey id is used twice"
                )

    def _spare(self, device: Device) -> None:
        """Keep a few one-time prekeys: looking at all of them after each failure would be the slowest part."""
        held = self.world.directory.prekeys[device.address]
        few = {prekey.prekey_id for prekey in (held.signed_prekey, held.last_resort)}
        for one_time in (held.one_time, held.one_time_kem):
            del one_time[2:]
            few |= {prekey.prekey_id for prekey in one_time}
        with device.store.write() as tx:
            for kind in PreKeyKind:
                for prekey in list(records.prekeys(tx, kind)):
                    if prekey.prekey_id not in few:
                        records.delete_prekey(tx, prekey.prekey_id)
            for record in tx.scan(Table.USED_PREKEY_IDS):
                if int.from_bytes(record.key, "big") not in few:
                    tx.delete(Table.USED_PREKEY_IDS, record.key)

    def _first_contact(self) -> Acts:
        alice, bob = self.alice, self.bob
        yield act(alice, "learn_device_lists", bob.user_id, self.world.directory.lists[bob.user_id])
        yield act(alice, "start_session", bob.bundle())
        yield from self._say(alice, bob, "hello", "and more")
        yield from self._bring(alice, bob)
        [first, *_] = self.sent
        yield act(bob, "send_receipt", alice.user_id, ReceiptType.READ, (first,))
        yield from self._say(bob, alice, "hello yourself")
        yield from self._bring(bob, alice)

    def _overtaking_and_loss(self) -> Acts:
        """The newest comes first, and one never comes."""
        alice, bob = self.alice, self.bob
        yield from self._say(alice, bob, "one", "two", "three")
        yield from self._post(alice)
        waiting = self.inboxes[bob].waiting
        seq, lost = waiting.pop(1)
        self.sent.discard(lost.message_id)
        yield act(bob, "delivery.note_dropped", DeliveryPosition(1, seq), alice.address)
        waiting.reverse()
        yield from self._take(bob)

    def _post_quantum_epochs(self) -> Acts:
        """One that is due, answered by an empty content, and one that is asked for."""
        alice, bob = self.alice, self.bob
        self.world.wait(DAY_MS)
        yield from self._say(alice, bob, "a day later")
        yield from self._bring(alice, bob)
        yield from self._rest()
        due = alice.sending_session(bob).ratchets.pq.epoch
        yield act(alice, "heal_now", bob.user_id)
        yield act(bob, "heal_now", alice.user_id)
        yield from self._rest()
        asked_for = alice.sending_session(bob).ratchets.pq.epoch
        assert 0 < due < asked_for == bob.sending_session(alice).ratchets.pq.epoch

    def _lost_session(self) -> Acts:
        """What cannot be read is asked for on a fresh session, and sent again."""
        alice, bob = self.alice, self.bob
        bob.forget_sessions(alice)
        yield from self._say(alice, bob, "nobody reads this", "nor this")
        yield from self._bring(alice, bob)
        yield from self._rest()

    def _refusals(self) -> Acts:
        """Bytes that are no envelope, a stranger under Alice's name, two lists of one number."""
        bob, world = self.bob, self.world
        yield act(bob, "receive", b"garbage", self._next_position(bob))
        stranger = world.device("alice", listed=False)
        yield act(bob, "receive", stranger.encrypt(bob, "it is me"), self._next_position(bob))
        mallory = world.device("mallory")
        bob.meet(mallory)
        content = mallory.messenger.own_device_list().content
        forked = mallory.messenger.account.sign_device_list(replace(content, created_at=content.created_at + 1)).signed
        lists: list[SignedDeviceList] = [forked]
        yield Act(bob, "learn_device_lists", (mallory.user_id, lists), raises=DeviceListForkError)
        contact = bob.messenger.contact(mallory.user_id)
        assert contact is not None
        assert contact.forked

    def _changed_account_key(self) -> Acts:
        """Dave lost everything and writes under a new key: what he says waits until Bob has decided."""
        bob, world = self.bob, self.world
        before = world.device("dave", one_time_prekeys=False)
        bob.meet(before)
        again = world.device("dave", one_time_prekeys=False, listed=False)
        last, first = (each.messenger.own_device_list().content for each in (before, again))
        follows = replace(first, seq=last.seq + 1, previous_hash=last.hash())
        renewed = again.messenger.account.sign_device_list(follows)
        with again.store.write() as tx:
            records.save_own_device_list(tx, renewed)
        yield act(bob, "receive", again.encrypt(bob, "my phone was stolen"), self._next_position(bob))
        assert again.user_id in bob.messenger.contact_book.waiting_for_trust()
        yield Act(bob, "learn_device_lists", (again.user_id, [renewed.signed]), raises=AccountKeyChangedError)
        self._accept_change(bob, again)
        yield act(bob, "reconsider", again.user_id)
        assert again.user_id not in bob.messenger.contact_book.waiting_for_trust()
        (row,) = bob.messenger.inbound()
        assert decode_application(row.content.body) == "my phone was stolen"
        yield act(bob, "confirm", row.number)

    def _account_reset(self) -> Acts:
        """Alice lost a device: her account gets a new key, while something waits for Bob and something comes of him."""
        alice, bob = self.alice, self.bob
        yield from self._say(bob, alice, "under way to the old key")
        yield from self._post(bob)
        yield from self._say(alice, bob, "waits under the old key")
        old_key = alice.messenger.account.party.account_key
        reset = yield act(alice, "account_reset.draft")
        assert alice.messenger.account_reset.pending() == reset
        published = self.world.directory.lists[alice.user_id]
        published += [reset.closing.signed, reset.first.signed]
        # Who died after it was accepted finds no draft.
        yield Act(alice, "account_reset.accepted", (), raises=ValueError)
        assert alice.messenger.account_reset.pending() is None
        assert alice.messenger.account.party == reset.account.party
        assert alice.messenger.account.party.account_key != old_key
        assert alice.messenger.own_device_list().position == reset.first.position
        assert alice.sessions(bob) == []
        assert alice.messenger.outbox.entries() == []
        yield Act(bob, "learn_device_lists", (alice.user_id, published[-2:]), raises=AccountKeyChangedError)
        yield from self._take(alice)
        tended = yield act(alice, "tend")
        assert tended.sessions_wanted == (bob.address,)
        yield act(alice, "start_session", bob.bundle())
        yield act(alice, "tend")
        yield from self._post(alice)
        yield from self._take(bob)
        assert alice.user_id in bob.messenger.contact_book.waiting_for_trust()
        self._accept_change(bob, alice)
        yield act(bob, "reconsider", alice.user_id)
        yield from self._take(bob)
        # Under her new key Alice is a stranger, whom Bob sends nothing again before he writes to her.
        yield from self._say(bob, alice, "accepted")
        yield from self._rest()
        decided = [each.decision for each in bob.messenger.contact_book.decisions(alice.user_id)]
        assert decided == [Decision.PINNED, Decision.KEY_CLOSED, Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED]

    def _accept_change(self, device: Device, peer: Device) -> None:
        change = device.messenger.contact_book.change(peer.user_id)
        assert change is not None
        device.messenger.contact_book.accept_change(peer.user_id, change.new_safety_number)

    def _read_marks(self) -> Acts:
        """Bob has a second device, which does not die, and reads."""
        bob, alice = self.bob, self.alice
        tablet = self.world.further_device(bob)
        tablet.messenger.history.set_retention(FOREVER)
        yield act(bob, "start_session", tablet.bundle())
        unread = bob.messenger.history.unread(alice.user_id)
        assert len(unread) > 1
        yield act(bob, "mark_read", alice.user_id, unread)
        assert bob.messenger.history.unread(alice.user_id) == ()
        yield from self._post(bob)
        for _, entry in self.inboxes[tablet].waiting:
            assert tablet.messenger.receive(entry.envelope).error is None
        with tablet.store.read() as tx:
            for message_id in unread:
                said = history_records.early(tx, alice.user_id, message_id)
                assert said is not None
                assert said.state is EntryState.READ

    def _rollback(self) -> Acts:
        """The relay remembers more of Alice than her store: what waits is encrypted anew."""
        yield from self._say(self.alice, self.bob, "written on a restored store")
        self.inboxes[self.alice].accepted += 1_000
        yield act(self.alice, "delivery.note_connected", self.inboxes[self.alice].statement())
        assert all(session.dead for session in self.alice.sessions(self.bob))
        yield from self._rest()

    def _housekeeping(self) -> Acts:
        alice, bob = self.alice, self.bob
        yield from self._say(alice, bob, "never posted")
        self.world.wait(OUTBOX_LIFETIME_MS + 1)
        given_up = {entry.envelope_id: "expired" for entry in alice.messenger.outbox.entries()}
        self.sent -= {entry.message_id for entry in alice.messenger.outbox.entries()}
        yield act(alice, "outbox.expire")
        assert alice.messenger.outbox.entries() == []
        yield from self._hear_of_failures(alice, given_up)
        self.world.wait(LATE_ENVELOPE_MS)
        for device, peer in ((alice, bob), (bob, alice)):
            yield act(device, "prune")
            self._offer(device, (yield act(device, "registration.due_prekeys", ServerCounts(25, 25))))
            # Lists expire after 30 days, so the server is asked for a newer one.
            yield act(device, "learn_device_lists", peer.user_id, self.world.directory.lists[peer.user_id][-1:])

    def _refused(self) -> Acts:
        """The relay refuses a message for good."""
        alice = self.alice
        yield from self._say(alice, self.bob, "refused")
        given_up = {entry.envelope_id: "contact_refused" for entry in alice.messenger.outbox.entries()}
        self.sent -= {entry.message_id for entry in alice.messenger.outbox.entries()}
        yield act(alice, "outbox.settle", (), tuple(given_up.items()))
        yield from self._hear_of_failures(alice, given_up)

    def _hear_of_failures(self, device: Device, given_up: dict[EnvelopeId, str]) -> Acts:
        """Whoever died after giving up, and before telling, must find it again."""
        told = device.messenger.outbox.failed()
        assert {each.envelope_id: each.code for each in told} == given_up, "given up, and nobody is told"
        yield act(device, "outbox.failures_told", tuple(given_up))
        assert device.messenger.outbox.failed() == []

    # --- what recurs -----------------------------------------------------------------------------------------

    def _say(self, sender: Device, recipient: Device, *texts: str) -> Acts:
        for text in texts:
            queued = yield act(sender, "send", recipient.user_id, text)
            self.sent.add(queued.message_id)

    def _bring(self, sender: Device, recipient: Device) -> Acts:
        """Come online, post, receive, and show what has come."""
        for device in (sender, recipient):
            notices = yield act(device, "delivery.note_connected", self.inboxes[device].statement())
            assert notices == (), "a crash never looks like a rollback"
        yield from self._post(sender)
        yield from self._take(recipient)

    def _post(self, sender: Device) -> Acts:
        for entry in sender.messenger.outbox.entries():
            inbox = self.inboxes[self.world.devices[entry.recipient]]
            inbox.head += 1
            inbox.waiting.append((inbox.head, entry))
            self.inboxes[sender].accepted = max(self.inboxes[sender].accepted, entry.counter)
            yield act(sender, "outbox.settle", (entry.envelope_id,))

    def _take(self, recipient: Device) -> Acts:
        inbox = self.inboxes[recipient]
        arriving, inbox.waiting = inbox.waiting, []
        for seq, entry in arriving:
            yield act(recipient, "receive", entry.envelope, DeliveryPosition(1, seq))
            inbox.acked = max(inbox.acked, seq)
        for row in recipient.messenger.inbound():
            if row.content.kind == ContentKind.APPLICATION:
                self.shown[row.content.message_id] += 1
            yield act(recipient, "confirm", row.number)

    def _rest(self) -> Acts:
        """Let both do what is due by itself until nothing is."""
        quiet = 0
        for _ in range(_RESTS):
            for device, peer in ((self.alice, self.bob), (self.bob, self.alice)):
                self.world.wait(PQ_ANSWER_MS)
                tended = yield act(device, "tend")
                for address in tended.sessions_wanted:
                    yield act(device, "start_session", self.world.devices[address].bundle())
                    tended = yield act(device, "tend")
                posted = len(device.messenger.outbox.entries())
                yield from self._post(device)
                yield from self._take(peer)
                quiet = 0 if posted or tended.again_in is not None else quiet + 1
            if quiet >= 2:
                return
        raise AssertionError("the devices never come to rest")

    def _next_position(self, device: Device) -> DeliveryPosition:
        self.inboxes[device].head += 1
        return DeliveryPosition(1, self.inboxes[device].head)
