"""Device lists and pinned account keys: what is believed, what stops sending, what waits for a human."""

from dataclasses import replace

import pytest

from e2ee.errors import (
    AccountKeyChangedError,
    DeviceListForkError,
    DeviceListStaleError,
    InvalidSignatureError,
    UnlistedDeviceError,
)
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.private_keys import AccountKeyPair
from e2ee.wire.device_list import DeviceList, DeviceListHash, ListPosition, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.envelope import Envelope
from tests.world import Device, World, content_from, talk, unchanged


def pair() -> tuple[Device, Device]:
    world = World("trust")
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


def successor(device: Device, previous: VerifiedDeviceList | None = None, **fields: object) -> VerifiedDeviceList:
    """Sign the next list of a device's user, some fields changed."""
    known = (previous or device.messenger.own_device_list()).content
    content = replace(known, seq=known.seq + 1, previous_hash=known.hash())
    return device.messenger.account.sign_device_list(replace(content, **fields))  # type: ignore[arg-type]  # names and types are the test's


def first_contact_seq(device: Device, peer: Device) -> int:
    contact = device.messenger.contact(peer.user_id)
    assert contact is not None
    return contact.device_list.content.seq


def reinstall(device: Device) -> Device:
    """The same user with everything new: account key, device, list."""
    return device.world.device(device.user_id, one_time_prekeys=False, listed=False)


# --- lists from the server -----------------------------------------------------------------------------------


def test_the_first_list_pins_the_account_key() -> None:
    alice, bob = pair()
    alice.meet(bob)
    contact = alice.messenger.contact(bob.user_id)
    assert contact is not None
    assert contact.account_key == bob.messenger.account.account_key_pair.public
    assert (contact.forked, contact.is_stale, contact.queried_at) == (False, False, alice.world.now)


def test_a_newer_list_is_taken_and_an_older_one_changes_nothing() -> None:
    alice, bob = pair()
    first = bob.messenger.own_device_list()
    second = successor(bob)
    third = successor(bob, second)
    alice.messenger.learn_device_lists(bob.user_id, [first.signed, second.signed, third.signed])
    with unchanged(alice):
        alice.messenger.learn_device_lists(bob.user_id, [first.signed, second.signed])
    assert first_contact_seq(alice, bob) == 3


def test_a_gap_is_accepted_on_the_signature() -> None:
    alice, bob = pair()
    alice.meet(bob)
    second = successor(bob)
    alice.messenger.learn_device_lists(bob.user_id, [successor(bob, second).signed])
    assert first_contact_seq(alice, bob) == 3


def forks(bob: Device) -> list[tuple[VerifiedDeviceList, VerifiedDeviceList]]:
    """Return (known, contradicting) lists, all signed by the account key."""
    second, other_second = successor(bob), successor(bob, created_at=bob.world.now + 1)
    severed = successor(bob, second, previous_hash=DeviceListHash(b"\x01" * 32))
    other_keys = replace(second.content.devices[0], identity_key=reinstall(bob).messenger.account.party.identity_key)
    rekeyed = successor(bob, successor(bob, second), devices=(other_keys,))
    return [(second, other_second), (second, severed), (severed, second), (second, rekeyed)]


@pytest.mark.parametrize("which", range(4))
def test_lists_that_contradict_each_other_stop_sending_for_good(which: int) -> None:
    alice, bob = pair()
    talk(alice, bob)
    known, contradicting = forks(bob)[which]
    alice.messenger.learn_device_lists(bob.user_id, [known.signed])
    with pytest.raises(DeviceListForkError):
        alice.messenger.learn_device_lists(bob.user_id, [contradicting.signed])
    for _ in range(2):
        with unchanged(alice), pytest.raises(DeviceListForkError):
            alice.messenger.send(bob.user_id, "hello")
        with pytest.raises(DeviceListForkError):
            alice.messenger.missing_sessions(bob.user_id)
        alice.restart()
    with pytest.raises(DeviceListForkError):
        alice.messenger.start_session(bob.bundle())
    # What bob's devices say is still read: their sessions prove who they are.
    assert alice.receive(bob.encrypt(alice, "still there")).outcome is Outcome.STORED


def test_a_list_of_another_user_or_with_a_false_signature_is_refused_and_changes_nothing() -> None:
    alice, bob = pair()
    carol = alice.world.device("carol")
    alice.meet(bob)
    signed = successor(bob).signed
    for forged in (
        successor(carol).signed,
        SignedDeviceList(signed.unverified, bytes(64)),
        SignedDeviceList(replace(signed.unverified, expires_at=1), signed.signature),
    ):
        with unchanged(alice), pytest.raises(InvalidSignatureError):
            alice.messenger.learn_device_lists(bob.user_id, [forged])


def test_a_list_under_another_account_key_is_kept_apart_and_the_pinned_key_stays() -> None:
    alice, bob = pair()
    talk(alice, bob)
    other = AccountKeyPair.generate(alice.world.random.randbytes)
    content = replace(successor(bob).content, account_key=other.public)
    resigned = SignedDeviceList(content, other.sign(content.signed_bytes()))
    before = alice.messenger.contact(bob.user_id)
    assert before is not None
    with unchanged(alice, Table.CONTACTS, Table.TRUST_DECISIONS, Table.COUNTERS), pytest.raises(AccountKeyChangedError):
        alice.messenger.learn_device_lists(bob.user_id, [resigned])
    assert alice.messenger.contact(bob.user_id) == replace(before, changed=resigned.verify(bob.user_id))


def test_a_batch_of_lists_is_taken_whole_or_not_at_all() -> None:
    alice, bob = pair()
    alice.meet(bob)
    second = successor(bob).signed
    with unchanged(alice), pytest.raises(InvalidSignatureError):
        alice.messenger.learn_device_lists(bob.user_id, [second, SignedDeviceList(second.unverified, bytes(64))])


# --- what messages say about lists ---------------------------------------------------------------------------


def claim(sender: Device, recipient: Device, position: ListPosition) -> bytes:
    return sender.seal(recipient, content_from(sender, recipient, sender_list=position).encode())


def test_a_message_that_names_a_newer_list_is_read_and_the_list_is_fetched_before_the_next_send() -> None:
    alice, bob = pair()
    talk(alice, bob)
    second = successor(bob)
    assert alice.receive(claim(bob, alice, second.position)).outcome is Outcome.STORED
    with unchanged(alice), pytest.raises(DeviceListStaleError):
        alice.messenger.send(bob.user_id, "too early")
    with pytest.raises(DeviceListStaleError):
        alice.messenger.missing_sessions(bob.user_id)
    alice.messenger.learn_device_lists(bob.user_id, [second.signed])
    alice.messenger.send(bob.user_id, "now")


def test_a_message_that_names_the_known_list_with_another_hash_is_read_and_sending_stops() -> None:
    alice, bob = pair()
    talk(alice, bob)
    assert alice.receive(claim(bob, alice, ListPosition(1, DeviceListHash(b"\x01" * 32)))).outcome is Outcome.STORED
    with pytest.raises(DeviceListForkError):
        alice.messenger.send(bob.user_id, "hello")


def test_a_message_that_names_another_predecessor_of_the_known_list_stops_sending_too() -> None:
    alice, bob = pair()
    talk(alice, bob)
    second = successor(bob)
    alice.messenger.learn_device_lists(bob.user_id, [second.signed])
    assert alice.receive(claim(bob, alice, bob.messenger.own_device_list().position)).outcome is Outcome.STORED
    alice.messenger.send(bob.user_id, "an older position of the same chain is honest")
    assert alice.receive(claim(bob, alice, ListPosition(1, DeviceListHash(b"\x01" * 32)))).outcome is Outcome.STORED
    with pytest.raises(DeviceListForkError):
        alice.messenger.send(bob.user_id, "hello")


def test_the_word_of_a_removed_device_about_its_users_lists_counts_no_more() -> None:
    """Otherwise a stolen device could stop all sending to its former owner."""
    alice, bob = pair()
    talk(alice, bob)
    other = reinstall(bob)
    entry = other.messenger.own_device_list().content.devices
    without_this = successor(bob, devices=entry)
    alice.messenger.learn_device_lists(bob.user_id, [without_this.signed])
    for lie in (ListPosition(2, DeviceListHash(b"\x01" * 32)), ListPosition(1 << 62, DeviceListHash(bytes(32)))):
        with unchanged(alice, Table.SESSIONS, Table.INBOUND, Table.BODY_HASHES, Table.MESSAGE_IDS, Table.COUNTERS):
            assert alice.receive(claim(bob, alice, lie)).outcome is Outcome.STORED
    assert alice.messenger.missing_sessions(bob.user_id) == (other.address,)


def test_a_device_that_left_the_newest_list_is_not_sent_to_and_starts_no_session() -> None:
    alice, bob = pair()
    talk(alice, bob)
    other = reinstall(bob)
    entry = other.messenger.own_device_list().content.devices
    alice.messenger.learn_device_lists(bob.user_id, [successor(bob, devices=entry).signed])
    with unchanged(alice), pytest.raises(UnlistedDeviceError):
        alice.messenger.start_session(bob.bundle())
    bob.start_session(alice)
    with unchanged(alice, Table.UNREADABLE):
        reception = alice.receive(bob.encrypt(alice, "hello again"))
    assert isinstance(reception.error, UnlistedDeviceError), "judged by the newest list, not by the one it carries"


def test_positions_for_a_send_are_the_newest_known() -> None:
    alice, bob = pair()
    with pytest.raises(DeviceListStaleError):
        alice.messenger.outbox.list_positions(bob.user_id)
    alice.meet(bob)
    theirs, ours = alice.messenger.outbox.list_positions(bob.user_id)
    assert theirs == bob.messenger.own_device_list().position
    assert ours == alice.messenger.own_device_list().position


# --- a changed account key -----------------------------------------------------------------------------------


def test_a_first_message_under_a_changed_account_key_waits_and_commits_nothing_else() -> None:
    alice, bob = pair()
    talk(alice, bob)
    new = reinstall(bob)
    envelope = new.encrypt(alice, "it is me, honestly")
    with unchanged(alice, Table.PENDING_TRUST):
        for _ in range(3):
            reception = alice.receive(envelope)
            assert reception.outcome is Outcome.WAITING_FOR_TRUST
            assert isinstance(reception.error, AccountKeyChangedError)
            assert reception.error.user_id == bob.user_id
    (waiting,) = alice.snapshot()[Table.PENDING_TRUST]
    assert waiting.value == envelope, "as ciphertext"
    assert alice.messenger.inbound() == []
    contact = alice.messenger.contact(bob.user_id)
    assert contact is not None
    assert contact.account_key == bob.messenger.account.account_key_pair.public
    assert alice.receive(bob.encrypt(alice, "the old device is still believed")).outcome is Outcome.STORED


def test_a_first_message_under_a_changed_account_key_consumes_no_prekey() -> None:
    world = World("trust with one-time prekeys")
    alice, bob = world.device("alice"), world.device("bob")
    talk(alice, bob)
    new = reinstall(bob)
    alice.bundle()
    prekeys = len(alice.snapshot()[Table.PREKEYS])
    assert alice.receive(new.encrypt(alice, "hello")).outcome is Outcome.WAITING_FOR_TRUST
    assert len(alice.snapshot()[Table.PREKEYS]) == prekeys


def test_a_list_signed_by_another_key_than_the_handshakes_is_refused() -> None:
    alice, bob = pair()
    mallory = alice.world.device("mallory", one_time_prekeys=False)
    alice.start_session(bob)
    borrowed: DeviceList = replace(mallory.messenger.own_device_list().content, user_id=alice.user_id)
    signed = mallory.messenger.account.account_key_pair.sign(borrowed.signed_bytes())
    forged = content_from(alice, bob, device_list=SignedDeviceList(borrowed, signed)).encode()
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(alice.seal(bob, forged)).error, InvalidSignatureError)


def test_a_forked_list_inside_a_message_stops_sending_and_the_message_is_refused() -> None:
    alice, bob = pair()
    talk(alice, bob)
    fork = bob.messenger.account.sign_device_list(
        replace(bob.messenger.own_device_list().content, created_at=bob.world.now + 1)
    )
    envelope = bob.seal(alice, content_from(bob, alice, device_list=fork.signed).encode())
    with unchanged(alice, Table.UNREADABLE, Table.CONTACTS):
        reception = alice.receive(envelope)
    assert isinstance(reception.error, DeviceListForkError)
    assert reception.envelope_id == Envelope.decode(envelope).envelope_id
    with pytest.raises(DeviceListForkError):
        alice.messenger.send(bob.user_id, "hello")
