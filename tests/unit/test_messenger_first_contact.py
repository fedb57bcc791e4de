"""Two devices that never spoke: how a session comes to be, and what a failed first message must not do."""

from dataclasses import replace

import pytest

from e2ee.account import PreKeyKind, generate_prekey
from e2ee.errors import (
    AuthenticationError,
    DeviceListStaleError,
    DuplicateMessageError,
    E2EEError,
    MalformedMessageError,
    PreKeyExpiredError,
    ReplayedHandshakeError,
    SessionNotFoundError,
    UnknownPreKeyError,
    UnlistedDeviceError,
)
from e2ee.limits import LATE_ENVELOPE_MS, PREKEY_LIFETIME_MS, PREKEY_ROTATION_MS
from e2ee.messenger import Outcome, Reception
from e2ee.ports import Table
from e2ee.stores import records
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.message import PreKeyMessage, RatchetMessage, decode_body
from tests.world import Device, World, changed, content_from, flip, unchanged


def pair(*, one_time_prekeys: bool = True) -> tuple[Device, Device]:
    world = World("first contact")
    return (
        world.device("alice", one_time_prekeys=one_time_prekeys),
        world.device("bob", one_time_prekeys=one_time_prekeys),
    )


def refused(reception: Reception, error: type[E2EEError]) -> None:
    assert reception.outcome is Outcome.UNREADABLE
    assert type(reception.error) is error


def test_a_first_message_is_read_and_answered() -> None:
    alice, bob = pair()
    alice.send(bob, "hello")
    alice.world.deliver()
    assert bob.read() == ["hello"]
    assert bob.messenger.missing_sessions(alice.user_id) == ()
    bob.send(alice, b"\x00 bytes, not text")
    alice.world.deliver()
    assert alice.read() == [b"\x00 bytes, not text"]


def test_sending_asks_for_the_list_and_then_for_a_bundle() -> None:
    alice, bob = pair()
    with pytest.raises(DeviceListStaleError):
        alice.messenger.send(bob.user_id, "too early")
    alice.meet(bob)
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)
    with unchanged(alice), pytest.raises(SessionNotFoundError):
        alice.messenger.send(bob.user_id, "too early")
    alice.messenger.start_session(bob.bundle())
    assert alice.messenger.missing_sessions(bob.user_id) == ()
    assert alice.messenger.send(bob.user_id, "now").without_session == ()


def test_every_message_before_the_first_reply_carries_handshake_and_device_list() -> None:
    alice, bob = pair()
    envelopes = [alice.encrypt(bob, str(number)) for number in range(4)]
    assert all(isinstance(decode_body(Envelope.decode(each).body), PreKeyMessage) for each in envelopes)
    # In reverse order: each of them alone can open the conversation.
    assert [bob.receive(each).outcome for each in reversed(envelopes)] == [Outcome.STORED] * 4
    assert bob.read() == ["3", "2", "1", "0"]
    assert len(bob.sessions(alice)) == 1
    alice.receive(bob.encrypt(alice, "reply"))
    assert isinstance(decode_body(Envelope.decode(alice.encrypt(bob, "next")).body), RatchetMessage)


def test_a_lost_first_message_does_not_matter() -> None:
    alice, bob = pair()
    lost, second = alice.encrypt(bob, "lost"), alice.encrypt(bob, "second")
    assert bob.receive(second).outcome is Outcome.STORED
    bob_reply = bob.encrypt(alice, "reply")
    assert alice.receive(bob_reply).outcome is Outcome.STORED
    assert bob.receive(lost).outcome is Outcome.STORED
    assert bob.read() == ["second", "lost"]


def test_a_first_message_uses_up_its_one_time_prekeys_and_pins_the_account_key_at_once() -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    prekeys, contact = len(bob.snapshot()[Table.PREKEYS]), bob.messenger.contact(alice.user_id)
    assert contact is None
    bob.receive(envelope)
    assert len(bob.snapshot()[Table.PREKEYS]) == prekeys - 2
    contact = bob.messenger.contact(alice.user_id)
    assert contact is not None
    assert contact.account_key == alice.messenger.account.account_key_pair.public


def test_a_first_message_works_without_one_time_prekeys() -> None:
    alice, bob = pair(one_time_prekeys=False)
    bundle = bob.bundle()
    assert bundle.one_time_prekey is None
    bob.receive(alice.encrypt(bob, "hello"))
    assert bob.read() == ["hello"]


@pytest.mark.parametrize("left_out", ["one_time_prekey", "one_time_kem"])
def test_a_first_message_works_with_one_kind_of_one_time_prekey_alone(left_out: str) -> None:
    alice, bob = pair()
    alice.meet(bob)
    bundle = bob.bundle()
    if left_out == "one_time_prekey":
        bundle = replace(bundle, one_time_prekey=None)
    else:
        bundle = replace(bundle, kem_prekey=bob.world.directory.prekeys[bob.address].last_resort)
    alice.messenger.start_session(bundle)
    first = alice.encrypt(bob, "hello")
    assert bob.receive(first).outcome is Outcome.STORED
    assert not bob.snapshot()[Table.REPLAYS], "the one-time key that was used up is protection enough"


def test_prekey_id_zero_is_valid() -> None:
    alice, bob = pair()
    with bob.store.write() as tx:
        zero = generate_prekey(PreKeyKind.ONE_TIME, PreKeyId(0), bob.world.now, bob.world.random.randbytes)
        records.save_prekey(tx, zero)
    alice.meet(bob)
    bundle = replace(bob.bundle(), one_time_prekey=bob.messenger.account.one_time_prekey(zero))
    alice.messenger.start_session(bundle)
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
    with bob.store.read() as tx:
        assert records.load_prekey(tx, PreKeyId(0)) is None


def test_a_failed_first_message_consumes_no_prekey_and_changes_no_store() -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    body_bits = 8 * (len(Envelope.decode(envelope).body) - 1)
    with unchanged(bob, Table.UNREADABLE):
        for bit in range(0, body_bits, 97):
            tampered = changed(envelope, body=flip(Envelope.decode(envelope).body, bit))
            assert bob.receive(tampered).outcome is Outcome.UNREADABLE
    assert bob.receive(envelope).outcome is Outcome.STORED
    assert bob.read() == ["hello"]


def test_a_bundle_that_is_used_twice_starts_one_session_at_the_responder() -> None:
    alice, bob = pair()
    carol = bob.world.device("carol")
    bundle = bob.bundle()
    for device in (alice, carol):
        device.meet(bob)
        device.messenger.start_session(bundle)
    assert bob.receive(alice.encrypt(bob, "first")).outcome is Outcome.STORED
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(carol.encrypt(bob, "second")), UnknownPreKeyError)


def test_an_expired_bundle_starts_no_session() -> None:
    alice, bob = pair()
    alice.meet(bob)
    bundle = bob.bundle()
    alice.world.wait(PREKEY_LIFETIME_MS)
    alice.meet(bob)
    with unchanged(alice), pytest.raises(PreKeyExpiredError):
        alice.messenger.start_session(bundle)


def test_a_bundle_of_an_unlisted_device_or_of_our_own_starts_no_session() -> None:
    alice, bob = pair()
    alice.meet(bob)
    alice.messenger.learn_device_lists(alice.user_id, [alice.messenger.own_device_list().signed])
    foreign = alice.world.device("foreign").bundle()
    for bundle in (replace(foreign, address=replace(foreign.address, user_id=bob.user_id)), alice.bundle()):
        with unchanged(alice), pytest.raises(UnlistedDeviceError):
            alice.messenger.start_session(bundle)


def test_a_replayed_first_message_is_a_duplicate_on_live_and_archived_sessions() -> None:
    alice, bob = pair()
    first = alice.encrypt(bob, "hello")
    bob.receive(first)
    bob.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "on the new session"))
    assert len(bob.sessions(alice)) == 2
    for again in (first, changed(first, lane=2)):
        with unchanged(bob):
            reception = bob.receive(again)
            assert reception.outcome is Outcome.DUPLICATE
            assert isinstance(reception.error, DuplicateMessageError)


def test_a_changed_copy_of_a_first_message_goes_to_its_session_and_not_to_a_second_handshake() -> None:
    alice, bob = pair(one_time_prekeys=False)
    first, second = alice.encrypt(bob, "hello"), alice.encrypt(bob, "second")
    bob.receive(first)
    body = Envelope.decode(second).body
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(changed(second, body=flip(body, 8 * len(body) - 1))), AuthenticationError)
    assert bob.receive(second).outcome is Outcome.STORED
    assert len(bob.sessions(alice)) == 1


@pytest.mark.parametrize("one_time_prekeys", [True, False])
def test_a_first_message_is_refused_after_its_session_is_gone(one_time_prekeys: bool) -> None:
    alice, bob = pair(one_time_prekeys=one_time_prekeys)
    first, unread = alice.encrypt(bob, "hello"), alice.encrypt(bob, "never delivered until now")
    bob.receive(first)
    bob.forget_sessions(alice)
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(unread), UnknownPreKeyError if one_time_prekeys else ReplayedHandshakeError)


def test_the_memory_of_first_messages_lives_as_long_as_their_last_resort_key() -> None:
    alice, bob = pair(one_time_prekeys=False)
    first = alice.encrypt(bob, "hello")
    bob.receive(first)
    bob.world.wait(PREKEY_ROTATION_MS)
    bob.publish()
    bob.world.wait(LATE_ENVELOPE_MS)
    bob.messenger.prune()
    assert bob.snapshot()[Table.REPLAYS]
    bob.world.wait(1)
    bob.messenger.prune()
    assert not bob.snapshot()[Table.REPLAYS]
    bob.forget_sessions(alice)
    refused(bob.receive(first), UnknownPreKeyError)


def test_a_first_message_without_a_device_list_is_refused_even_from_a_contact() -> None:
    alice, bob = pair()
    bob.meet(alice)
    alice.start_session(bob)
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(alice.seal(bob, content_from(alice, bob).encode())), MalformedMessageError)


def test_a_first_message_from_a_device_that_its_users_list_does_not_name_is_refused() -> None:
    """The account key signs both lists; the device that speaks is in neither the carried nor the newest one."""
    alice, bob = pair()
    alice.start_session(bob)
    other = alice.world.device("other")
    account = alice.messenger.account
    entry = other.messenger.own_device_list().content.devices
    signed = account.sign_device_list(replace(alice.messenger.own_device_list().content, devices=entry)).signed
    with unchanged(bob, Table.UNREADABLE):
        forged = content_from(alice, bob, device_list=signed).encode()
        refused(bob.receive(alice.seal(bob, forged)), UnlistedDeviceError)


def test_a_first_message_under_a_false_sender_is_refused() -> None:
    alice, bob = pair()
    mallory = alice.world.device("mallory")
    envelope = alice.encrypt(bob, "hello")
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(changed(envelope, sender=mallory.address)), AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED
