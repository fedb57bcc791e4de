"""Envelopes that must be refused: what is recorded, and that nothing else changes."""

import pytest

from e2ee.errors import (
    AuthenticationError,
    E2EEError,
    MalformedMessageError,
    SessionNotFoundError,
    StoreUnavailableError,
    UnsupportedVersionError,
    WrongRecipientError,
)
from e2ee.limits import MAX_APPLICATION_DATA, MAX_UNREADABLE
from e2ee.messenger import DeliveryPosition, Outcome, Reception
from e2ee.ports import Table
from e2ee.stores import message_records
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.content import ContentKind
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import CallId, EnvelopeId
from tests.breaking_store import BreakingStore
from tests.world import Device, World, changed, content_from, flip, talk, unchanged


def established() -> tuple[Device, Device]:
    world = World("refusals")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def refused(reception: Reception, error: type[E2EEError]) -> None:
    assert reception.outcome is Outcome.UNREADABLE
    assert type(reception.error) is error


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x02" * 100, bytes(200_000)], ids=["empty", "short", "v2", "long"])
def test_bytes_that_are_no_envelope_are_refused_and_change_nothing_but_the_position(garbage: bytes) -> None:
    _, bob = established()
    with unchanged(bob, Table.DELIVERIES, Table.COUNTERS):
        reception = bob.messenger.receive(garbage, DeliveryPosition(1, 1))
    assert reception.outcome is Outcome.UNREADABLE
    assert (reception.sender, reception.envelope_id) == (None, None)
    assert bob.messenger.delivery.cursor() == (1, 1)


def test_every_flipped_byte_of_an_envelope_changes_nothing_but_the_record_of_it() -> None:
    """Two bytes of an envelope are the server's alone, the lane and the time to live: it may change those."""
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    body_at = len(envelope) - len(Envelope.decode(envelope).body)
    id_at, routing_at = range(1, 17), range(body_at - 9, body_at - 4)
    sender_at = range(17, 17 + len(alice.address.encode()))
    with unchanged(bob, Table.UNREADABLE):
        for at in range(len(envelope)):
            if at in id_at or at in routing_at:
                continue
            reception = bob.receive(flip(envelope, 8 * at))
            assert reception.outcome is Outcome.UNREADABLE, at
            if at in sender_at:
                assert isinstance(reception.error, SessionNotFoundError | MalformedMessageError), at
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_a_refused_envelope_is_recorded_once_however_often_it_comes() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    tampered = flip(envelope, 8 * len(envelope) - 1)
    for _ in range(3):
        refused(bob.receive(tampered), AuthenticationError)
    assert bob.messenger.status().unreadable == 1
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_an_envelope_for_another_device_is_refused() -> None:
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    envelope = alice.encrypt(bob, "hello")
    with unchanged(carol, Table.UNREADABLE):
        refused(carol.receive(envelope), WrongRecipientError)
        refused(carol.receive(changed(envelope, recipient=carol.address)), SessionNotFoundError)


def test_an_envelope_whose_sender_was_changed_is_refused() -> None:
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    envelope = alice.encrypt(bob, "hello")
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(changed(envelope, sender=carol.address)), AuthenticationError)
        refused(bob.receive(changed(envelope, sender=bob.address)), SessionNotFoundError)


def test_our_own_envelopes_reflected_at_us_are_refused() -> None:
    world = World("reflection")
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    first = alice.encrypt(bob, "hello")
    bob.receive(first)
    alice.receive(bob.encrypt(alice, "reply"))
    for envelope in (first, alice.encrypt(bob, "established")):
        reflected = changed(envelope, sender=bob.address, recipient=alice.address)
        with unchanged(alice, Table.UNREADABLE):
            refused(alice.receive(reflected), AuthenticationError)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ContentKind.APPLICATION, b""),
        (ContentKind.APPLICATION, b"\x02unknown format"),
        (ContentKind.APPLICATION, b"\x01\xff not UTF-8"),
        (ContentKind.APPLICATION, bytes(MAX_APPLICATION_DATA + 2)),
        (ContentKind.RECEIPT, b""),
        (ContentKind.RECEIPT, b"\x03\x00\x01" + bytes(16)),
        (ContentKind.RECEIPT, b"\x01\x00\x02" + bytes(16)),
        (ContentKind.RETRY_REQUEST, b""),
        (ContentKind.RETRY_REQUEST, b"\x00\x00"),
        (ContentKind.RETRY_REQUEST, b"\x00\x02" + bytes(16)),
        (ContentKind.RETRY_REQUEST, b"\x01\x01" + bytes(257 * 16)),
        (ContentKind.CALL, b""),
        (ContentKind.CALL, bytes(16) + b"\x07"),
        (ContentKind.CALL, bytes(16) + b"\x01" + bytes(3_841)),
        (ContentKind.DEVICE_LIST_UPDATE, b""),
        (ContentKind.DEVICE_LIST_UPDATE, b"\x01\x00\x00\x00\x01\x00"),
    ],
)
def test_a_malformed_body_inside_an_authentic_message_is_refused_and_changes_nothing(kind: int, body: bytes) -> None:
    alice, bob = established()
    with unchanged(bob, Table.UNREADABLE):
        refused(
            bob.receive(alice.seal(bob, content_from(alice, bob, kind=kind, body=body).encode())), MalformedMessageError
        )
    assert bob.receive(alice.encrypt(bob, "next")).outcome is Outcome.STORED


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 16, b"\xff" * 500], ids=["empty", "short", "long"])
def test_an_authentic_message_that_is_no_content_is_refused_and_changes_nothing(garbage: bytes) -> None:
    alice, bob = established()
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(alice.seal(bob, garbage)), MalformedMessageError)
    assert bob.receive(alice.encrypt(bob, "next")).outcome is Outcome.STORED


@pytest.mark.parametrize("kind", [0, 10, 99, 255])
def test_unknown_kinds_are_kept_as_unsupported_with_their_bytes(kind: int) -> None:
    alice, bob = established()
    with unchanged(bob, Table.SESSIONS, Table.INBOUND, Table.BODY_HASHES, Table.MESSAGE_IDS, Table.COUNTERS):
        assert bob.receive(alice.encrypt(bob, b"from the future", kind)).outcome is Outcome.STORED
    (message,) = bob.messenger.inbound()
    assert (message.content.kind, message.content.body) == (kind, b"from the future")
    assert bob.read() == []


@pytest.mark.parametrize("kind", [ContentKind.EMPTY, ContentKind.SESSION_RESET])
def test_kinds_that_this_release_does_not_serve_are_consumed_and_never_acted_on(kind: int) -> None:
    alice, bob = established()
    with unchanged(bob, Table.SESSIONS, Table.BODY_HASHES, Table.MESSAGE_IDS):
        assert bob.receive(alice.encrypt(bob, b"\xff anything", kind)).outcome is Outcome.CONSUMED
    assert bob.messenger.inbound() == []


def test_a_call_signal_is_handed_over_at_once_and_stored_nowhere() -> None:
    alice, bob = established()
    signal = CallSignal(CallId(bytes(16)), CallAction.RING, b"an offer")
    with unchanged(bob, Table.SESSIONS, Table.BODY_HASHES, Table.MESSAGE_IDS):
        reception = bob.receive(alice.encrypt(bob, signal.encode(), ContentKind.CALL))
    assert (reception.outcome, reception.call, reception.sender) == (Outcome.CONSUMED, signal, alice.address)
    assert bob.messenger.inbound() == []


def test_a_call_signal_that_was_held_back_for_minutes_is_not_handed_over() -> None:
    alice, bob = established()
    signal = CallSignal(CallId(bytes(16)), CallAction.RING)
    envelopes = [alice.encrypt(bob, signal.encode(), ContentKind.CALL) for _ in range(2)]
    bob.world.wait(359_999)
    assert bob.receive(envelopes[0]).call == signal
    bob.world.wait(1)
    late = bob.receive(envelopes[1])
    assert (late.outcome, late.call) == (Outcome.CONSUMED, None)


def test_the_notice_of_a_missed_call_waits_for_the_application() -> None:
    alice, bob = established()
    signal = CallSignal(CallId(bytes(16)), CallAction.MISSED)
    reception = bob.receive(alice.encrypt(bob, signal.encode(), ContentKind.CALL))
    assert (reception.outcome, reception.call) == (Outcome.STORED, None)
    (message,) = bob.messenger.inbound()
    assert CallSignal.decode(message.content.body) == signal


def test_an_unknown_envelope_version_is_refused() -> None:
    alice, bob = established()
    with unchanged(bob):
        refused(bob.receive(b"\x02" + alice.encrypt(bob, "hello")[1:]), UnsupportedVersionError)


def test_strangers_cannot_fill_the_store_with_unreadable_records() -> None:
    alice, bob = established()
    with bob.store.write() as tx:
        for number in range(MAX_UNREADABLE + 10):
            junk = Envelope.decode(alice.wrap(bob, b"junk"))
            message_records.remember_unreadable(tx, junk, "malformed_message", number)
    assert bob.messenger.status().unreadable == MAX_UNREADABLE
    rows = bob.snapshot()[Table.UNREADABLE]
    assert [row.order for row in (rows[0], rows[-1])] == [10, MAX_UNREADABLE + 9], "the oldest go"


def test_errors_of_our_own_store_propagate_so_that_nothing_is_acknowledged() -> None:
    world = World("broken disk")
    alice = world.device("alice", one_time_prekeys=False)
    disk = BreakingStore()
    bob = world.device("bob", one_time_prekeys=False, store=disk)
    envelope = alice.encrypt(bob, "hello")
    before = bob.snapshot()
    for broken_after in range(8):
        disk.puts_left = broken_after
        with pytest.raises(StoreUnavailableError):
            bob.messenger.receive(envelope, DeliveryPosition(1, 1))
        disk.puts_left = None
        assert bob.snapshot() == before
        assert bob.messenger.delivery.cursor() == (0, 0)
    assert bob.messenger.receive(envelope, DeliveryPosition(1, 1)).outcome is Outcome.STORED


def test_a_broken_disk_while_recording_a_refusal_propagates_too() -> None:
    world = World("broken disk")
    disk = BreakingStore()
    bob = world.device("bob", one_time_prekeys=False, store=disk)
    junk = world.device("alice").wrap(bob, b"junk")
    disk.puts_left = 0
    with pytest.raises(StoreUnavailableError):
        bob.receive(junk)
    disk.puts_left = None
    refused(bob.receive(junk), MalformedMessageError)


def test_an_envelope_id_names_a_ciphertext_and_two_senders_may_use_the_same() -> None:
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    same = EnvelopeId(bytes(16))
    for sender in (alice, carol):
        assert bob.receive(changed(sender.encrypt(bob, "hello"), envelope_id=same)).outcome is Outcome.STORED
        refused(bob.receive(changed(sender.wrap(bob, b"junk"), envelope_id=same)), MalformedMessageError)
    assert bob.messenger.status().unreadable == 2
