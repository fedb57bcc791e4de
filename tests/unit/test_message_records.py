"""Outbox, inbound table and inbox position: order, counters, holes, epochs."""

from random import Random

import pytest

from e2ee.errors import CorruptStateError
from e2ee.limits import LATE_ENVELOPE_MS, MAX_PENDING_TRUST, MAX_TIMESTAMP, OUTBOX_LIFETIME_MS, PENDING_TRUST_MS
from e2ee.messenger import DeliveryPosition, Messenger, Outcome
from e2ee.ports import Table
from e2ee.rollback import RelayStatement
from e2ee.stores import message_records, trust_records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.message_records import FailedSend
from e2ee.wire.content import ContentKind, Receipt, ReceiptType
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import EnvelopeId, MessageId, parse_user_id
from tests.world import Device, World, changed, talk, unchanged


def established() -> tuple[Device, Device]:
    world = World("message records")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def lone() -> Messenger:
    return Messenger.create(MemoryStore(), parse_user_id("alice"))


# --- out -----------------------------------------------------------------------------------------------------


def test_the_outbox_keeps_order_counters_and_bytes_until_settled() -> None:
    alice, bob = established()
    queued = [alice.messenger.send(bob.user_id, str(number)).entries[0] for number in range(12)]
    assert alice.messenger.outbox.entries() == queued
    assert alice.messenger.outbox.entries(limit=2) == queued[:2]
    alice.restart()
    assert alice.messenger.outbox.entries() == queued, "a retry sends the same bytes"
    counters = [entry.counter for entry in queued]
    assert counters == list(range(counters[0], counters[0] + 12))
    alice.messenger.outbox.settle([queued[0].envelope_id, queued[3].envelope_id, EnvelopeId(bytes(16))])
    assert [entry.counter for entry in alice.messenger.outbox.entries()] == [*counters[1:3], *counters[4:]]
    assert alice.messenger.send(bob.user_id, "next").entries[0].counter == counters[-1] + 1


def test_every_encryption_has_a_fresh_envelope_id_and_a_message_id_of_its_own() -> None:
    alice, bob = established()
    entries = [alice.messenger.send(bob.user_id, "same text").entries[0] for _ in range(50)]
    assert len({entry.envelope_id for entry in entries}) == 50
    assert len({entry.message_id for entry in entries}) == 50
    assert len({Envelope.decode(entry.envelope).body for entry in entries}) == 50


def test_the_outbox_gives_up_after_14_days_and_says_which() -> None:
    alice, bob = established()
    old = alice.messenger.send(bob.user_id, "old").entries[0]
    alice.world.wait(OUTBOX_LIFETIME_MS)
    fresh = alice.messenger.send(bob.user_id, "fresh").entries[0]
    assert alice.messenger.outbox.expire() == []
    alice.world.wait(1)
    assert alice.messenger.outbox.expire() == [old]
    [failed] = alice.messenger.outbox.failed()
    assert failed == FailedSend(old.envelope_id, old.message_id, old.recipient, "expired")
    assert alice.messenger.outbox.entries() == [fresh]


def test_what_was_given_up_is_known_until_it_was_told_whatever_happens_to_the_process() -> None:
    alice, bob = established()
    accepted, refused, waiting = (alice.messenger.send(bob.user_id, str(number)).entries[0] for number in range(3))
    unknown = EnvelopeId(bytes(16))
    alice.messenger.outbox.settle(
        [accepted.envelope_id], [(refused.envelope_id, "contact_refused"), (unknown, "contact_refused")]
    )
    alice.restart()
    assert alice.messenger.outbox.entries() == [waiting]
    known = FailedSend(refused.envelope_id, refused.message_id, bob.address, "contact_refused")
    assert alice.messenger.outbox.failed() == [known]
    alice.messenger.outbox.failures_told([known.envelope_id, unknown])
    assert alice.messenger.outbox.failed() == []


def test_what_nobody_asks_for_is_forgotten_after_45_days() -> None:
    alice, bob = established()
    entry = alice.messenger.send(bob.user_id, "refused").entries[0]
    alice.messenger.outbox.settle((), [(entry.envelope_id, "contact_refused")])
    alice.world.wait(LATE_ENVELOPE_MS + 1)
    alice.messenger.prune()
    assert alice.messenger.outbox.failed() == []


def test_a_failed_send_that_does_not_decode_is_corrupt_state() -> None:
    alice, bob = established()
    entry = alice.messenger.send(bob.user_id, "refused").entries[0]
    alice.messenger.outbox.settle((), [(entry.envelope_id, "contact_refused")])
    [record] = alice.snapshot()[Table.FAILED_SENDS]
    for broken in (b"", b"\x02" + record.value[1:], record.value[:-1], record.value + b"\0"):
        with alice.store.write() as tx:
            tx.put(Table.FAILED_SENDS, record.key, broken)
        with pytest.raises(CorruptStateError):
            alice.messenger.outbox.failed()


def test_a_send_that_fails_changes_nothing() -> None:
    alice, bob = established()
    with unchanged(alice), pytest.raises(ValueError):
        alice.messenger.send(bob.user_id, bytes(65537))
    for ttl in (0, -1, 2_419_201):
        with unchanged(alice), pytest.raises(ValueError):
            alice.messenger.send(bob.user_id, "hello", ttl=ttl)


def test_the_largest_message_fits_into_an_envelope_even_with_the_handshake_in_front() -> None:
    world = World("large")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    large = world.random.randbytes(64 * 1024)
    assert bob.receive(alice.encrypt(bob, large)).outcome is Outcome.STORED
    assert bob.read() == [large]


# --- in ------------------------------------------------------------------------------------------------------


def test_inbound_contents_wait_in_order_until_each_is_confirmed() -> None:
    alice, bob = established()
    numbers = [bob.receive(alice.encrypt(bob, str(number))).number for number in range(11)]
    bob.restart()
    assert [message.number for message in bob.messenger.inbound()] == numbers
    assert [message.number for message in bob.messenger.inbound(limit=2)] == numbers[:2]
    middle = numbers[5]
    assert middle is not None
    bob.messenger.confirm(middle)
    bob.messenger.confirm(middle)
    assert [message.number for message in bob.messenger.inbound()] == numbers[:5] + numbers[6:]


def test_inbound_contents_name_the_proven_sender_and_drop_the_device_list() -> None:
    world = World("inbound")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    bob.receive(alice.encrypt(bob, "first"))
    (message,) = bob.messenger.inbound()
    assert message.sender == alice.address
    assert message.received_at == world.now
    assert message.content.device_list is None


def test_receipts_reach_the_application_of_the_other_end() -> None:
    alice, bob = established()
    ids = tuple(MessageId(bytes([number]) * 16) for number in range(256))
    bob.messenger.send_receipt(alice.user_id, ReceiptType.READ, ids)
    assert alice.receive(bob.messenger.outbox.entries()[0].envelope).outcome is Outcome.STORED
    (message,) = alice.messenger.inbound()
    assert message.content.kind == ContentKind.RECEIPT
    assert Receipt.decode(message.content.body) == Receipt(ReceiptType.READ, ids)
    assert alice.read() == []
    with unchanged(bob), pytest.raises(ValueError):
        bob.messenger.send_receipt(alice.user_id, ReceiptType.READ, ())


def test_message_ids_and_body_hashes_live_45_days() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    bob.receive(envelope)
    bob.world.wait(LATE_ENVELOPE_MS)
    bob.messenger.prune()
    for table in (Table.BODY_HASHES, Table.MESSAGE_IDS):
        assert bob.snapshot()[table]
    assert bob.receive(envelope).outcome is Outcome.DUPLICATE
    bob.world.wait(1)
    bob.messenger.prune()
    for table in (Table.BODY_HASHES, Table.MESSAGE_IDS, Table.UNREADABLE):
        assert not bob.snapshot()[table]
    assert bob.receive(envelope).outcome is Outcome.DUPLICATE, "the ratchet knows it still"


def test_message_ids_are_scoped_to_their_sender() -> None:
    alice, bob = established()
    with bob.store.write() as tx:
        message_records.remember_message(tx, alice.user_id, MessageId(bytes(16)), bob.world.now)
        assert message_records.is_known_message(tx, alice.user_id, MessageId(bytes(16)))
        assert not message_records.is_known_message(tx, parse_user_id("carol"), MessageId(bytes(16)))


# --- the inbox position --------------------------------------------------------------------------------------


def test_the_watermark_waits_for_holes() -> None:
    bob = lone()
    for seq, watermark in ((1, 1), (3, 1), (5, 1), (2, 3), (4, 5), (4, 5), (1, 5), (6, 6)):
        bob.delivery.note_dropped(DeliveryPosition(7, seq))
        assert bob.delivery.cursor() == (7, watermark)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_arrival_ends_at_the_head_and_leaves_no_record(seed: int) -> None:
    store = MemoryStore()
    bob = Messenger.create(store, parse_user_id("bob"))
    seqs = [*range(1, 200), *range(50, 80)]
    Random(seed).shuffle(seqs)
    reached = 0
    for seq in seqs:
        bob.delivery.note_dropped(DeliveryPosition(1, seq))
        assert bob.delivery.cursor()[1] >= reached, "it never goes back"
        reached = bob.delivery.cursor()[1]
    assert reached == 199
    with store.read() as tx:
        assert tx.count(Table.DELIVERIES) == 0


def test_a_new_epoch_starts_from_nothing() -> None:
    bob = lone()
    for seq in (1, 2, 4):
        bob.delivery.note_dropped(DeliveryPosition(1, seq))
    bob.delivery.note_dropped(DeliveryPosition(2, 3))
    assert bob.delivery.cursor() == (2, 0)
    bob.delivery.note_connected(RelayStatement(3, 0))
    assert bob.delivery.cursor() == (3, 0)
    bob.delivery.note_dropped(DeliveryPosition(3, 1))
    assert bob.delivery.cursor() == (3, 1)


def test_the_floor_of_the_inbox_closes_holes_below_it_and_leaves_no_record_behind() -> None:
    store = MemoryStore()
    bob = Messenger.create(store, parse_user_id("bob"))
    for seq in (2, 3, 6, 8):
        bob.delivery.note_dropped(DeliveryPosition(1, seq))
    bob.delivery.note_connected(RelayStatement(1, 5))
    assert bob.delivery.cursor() == (1, 6)
    with store.read() as tx:
        assert list(message_records.committed_above_watermark(tx)) == [8]
    bob.delivery.note_connected(RelayStatement(1, 0))
    assert bob.delivery.cursor() == (1, 6), "a lower floor takes nothing back"


def test_the_highest_numbers_a_server_can_state_are_taken_without_complaint() -> None:
    bob = lone()
    bob.delivery.note_dropped(DeliveryPosition(MAX_TIMESTAMP, MAX_TIMESTAMP))
    bob.delivery.note_connected(RelayStatement(MAX_TIMESTAMP, MAX_TIMESTAMP))
    assert bob.delivery.cursor() == (MAX_TIMESTAMP, MAX_TIMESTAMP)
    bob.delivery.note_connected(RelayStatement(1, 0))
    assert bob.delivery.cursor() == (1, 0)


def test_a_hole_that_never_closes_is_given_up_and_the_watermark_never_goes_back() -> None:
    store = MemoryStore()
    bob = Messenger.create(store, parse_user_id("bob"))
    bob.delivery.note_dropped(DeliveryPosition(1, 3))
    bob.delivery.note_connected(RelayStatement(1, 5))
    reached = 0
    for seq in range(10, 10 + 2 * 1_100, 2):
        bob.delivery.note_dropped(DeliveryPosition(1, seq))
        assert bob.delivery.cursor()[1] >= max(reached, 5)
        reached = bob.delivery.cursor()[1]
    assert reached > 10
    with store.read() as tx:
        assert tx.count(Table.DELIVERIES) <= 1_000


def test_the_position_commits_together_with_what_the_envelope_caused() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    for number, again in enumerate((envelope, envelope, changed(envelope, body=b"junk")), start=1):
        bob.messenger.receive(again, DeliveryPosition(1, number))
        assert bob.messenger.delivery.cursor() == (1, number)


# --- envelopes that wait for a decision ----------------------------------------------------------------------


def test_at_most_100_messages_per_contact_wait_for_trust_for_30_days() -> None:
    alice, bob = established()
    with bob.store.write() as tx:
        kept = [
            trust_records.keep_envelope(tx, Envelope.decode(alice.wrap(bob, b"sealed")), bob.world.now)
            for _ in range(MAX_PENDING_TRUST + 1)
        ]
    assert kept == [True] * MAX_PENDING_TRUST + [False]
    bob.world.wait(PENDING_TRUST_MS)
    bob.messenger.prune()
    assert len(bob.snapshot()[Table.PENDING_TRUST]) == MAX_PENDING_TRUST
    bob.world.wait(1)
    bob.messenger.prune()
    assert not bob.snapshot()[Table.PENDING_TRUST]


def test_one_senders_waiting_message_does_not_replace_anothers_of_the_same_id() -> None:
    alice, bob = established()
    carol = alice.world.device("carol")
    with bob.store.write() as tx:
        for sender in (alice, carol):
            same_id = changed(sender.wrap(bob, b"sealed"), envelope_id=EnvelopeId(bytes(16)))
            trust_records.keep_envelope(tx, Envelope.decode(same_id), bob.world.now)
        assert tx.count(Table.PENDING_TRUST) == 2


# --- corruption ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [Table.OUTBOX, Table.INBOUND])
def test_a_row_that_does_not_decode_is_corrupt_state(table: Table) -> None:
    alice, _ = established()
    with alice.store.write() as tx:
        tx.put(table, b"k", b"junk", order=1)
    with pytest.raises(CorruptStateError):
        alice.messenger.outbox.entries() if table is Table.OUTBOX else alice.messenger.inbound()
