"""One kind of object taken for another (docs/attacks.md, rows 9, 10, 11 and 22)."""

from dataclasses import replace

import pytest

from e2ee.errors import ForbiddenContentError, InvalidSignatureError, ProtocolError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.content import ContentKind, encode_device_lists
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PreKeyMessage
from e2ee.wire.prekey_bundle import KemPreKeyKind
from tests.world import Device, World, changed, content_from, talk, unchanged


def pair(*, one_time_prekeys: bool = False) -> tuple[Device, Device]:
    world = World("confusion")
    return (
        world.device("alice", one_time_prekeys=one_time_prekeys),
        world.device("bob", one_time_prekeys=one_time_prekeys),
    )


def test_the_type_of_a_body_cannot_be_changed() -> None:
    alice, bob = pair()
    first = alice.encrypt(bob, "first")
    body = Envelope.decode(first).body
    with unchanged(bob, Table.UNREADABLE):
        for kind in (0, 2, 3, 255):
            assert bob.receive(changed(first, body=body[:1] + bytes([kind]) + body[2:])).outcome is Outcome.UNREADABLE
    talk(alice, bob)
    later = alice.encrypt(bob, "later")
    body = Envelope.decode(later).body
    with unchanged(bob, Table.UNREADABLE):
        for kind in (0, 1, 3, 255):
            assert bob.receive(changed(later, body=body[:1] + bytes([kind]) + body[2:])).outcome is Outcome.UNREADABLE


def test_stripping_the_handshake_yields_the_same_message_once_or_nothing() -> None:
    alice, bob = pair()
    first, second = alice.encrypt(bob, "first"), alice.encrypt(bob, "second")

    def stripped(envelope: bytes) -> bytes:
        return changed(envelope, body=PreKeyMessage.decode(Envelope.decode(envelope).body).message.encode())

    with unchanged(bob, Table.UNREADABLE):
        assert bob.receive(stripped(first)).outcome is Outcome.UNREADABLE
    assert bob.receive(first).outcome is Outcome.STORED
    assert bob.receive(stripped(second)).outcome is Outcome.STORED
    with unchanged(bob):
        assert bob.receive(second).outcome is Outcome.DUPLICATE
        assert bob.receive(stripped(first)).outcome is Outcome.DUPLICATE
    assert bob.read() == ["first", "second"]


def test_a_handshake_in_front_of_another_sessions_message_is_refused() -> None:
    alice, bob = pair()
    carol = bob.world.device("carol", one_time_prekeys=False)
    ours, theirs = (PreKeyMessage.decode(Envelope.decode(each.encrypt(bob, "hi")).body) for each in (alice, carol))
    for one, other in ((ours, theirs), (theirs, ours)):
        spliced = PreKeyMessage(one.handshake, other.message).encode()
        for sender in (alice, carol):
            with unchanged(bob, Table.UNREADABLE):
                assert bob.receive(sender.wrap(bob, spliced)).outcome is Outcome.UNREADABLE


def test_a_kem_prekey_of_one_kind_does_not_pass_for_the_other() -> None:
    alice, bob = pair(one_time_prekeys=True)
    alice.meet(bob)
    one_time = bob.bundle()
    last_resort = replace(one_time, kem_prekey=bob.world.directory.prekeys[bob.address].last_resort)
    for bundle, kind in ((one_time, KemPreKeyKind.LAST_RESORT), (last_resort, KemPreKeyKind.ONE_TIME)):
        with unchanged(alice), pytest.raises(InvalidSignatureError):
            alice.messenger.start_session(replace(bundle, kem_prekey=replace(bundle.kem_prekey, kind=kind)))


def test_a_prekey_of_another_device_of_the_directory_does_not_pass() -> None:
    alice, bob = pair()
    carol = bob.world.device("carol", one_time_prekeys=False)
    alice.meet(bob)
    ours, theirs = bob.bundle(), carol.bundle()
    for mixed in (replace(ours, signed_prekey=theirs.signed_prekey), replace(ours, kem_prekey=theirs.kem_prekey)):
        with unchanged(alice), pytest.raises(InvalidSignatureError):
            alice.messenger.start_session(mixed)


def test_prekey_ids_of_one_kind_do_not_serve_as_another() -> None:
    """All kinds share one id space: an id in the wrong field must be unknown, not another key."""
    alice, bob = pair(one_time_prekeys=True)
    envelope = alice.encrypt(bob, "hello")
    message = PreKeyMessage.decode(Envelope.decode(envelope).body)
    header = message.handshake
    assert header.one_time_prekey_id is not None
    crossed = (
        replace(header, signed_prekey_id=header.one_time_prekey_id),
        replace(header, one_time_prekey_id=header.signed_prekey_id),
        replace(header, one_time_prekey_id=header.kem_prekey_id),
        replace(header, kem_prekey_id=header.signed_prekey_id),
        replace(header, kem_prekey_id=header.one_time_prekey_id),
        replace(header, signed_prekey_id=header.kem_prekey_id),
    )
    for each in crossed:
        with unchanged(bob, Table.UNREADABLE):
            error = bob.receive(changed(envelope, body=PreKeyMessage(each, message.message).encode())).error
        assert error is not None
        assert error.code == "unknown_prekey"


@pytest.mark.parametrize("kind", [ContentKind.SYNC, ContentKind.LINK])
def test_a_content_reserved_for_own_devices_is_refused_from_another_account(kind: ContentKind) -> None:
    alice, bob = pair()
    talk(alice, bob)
    contents = alice.seal(bob, content_from(alice, bob, kind=kind, body=b"keys, take them").encode())
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(contents).error, ForbiddenContentError)
    assert bob.messenger.inbound() == []
    assert bob.receive(alice.encrypt(bob, "next")).outcome is Outcome.STORED


def test_a_device_list_update_about_somebody_else_is_refused() -> None:
    alice, bob = pair()
    carol = bob.world.device("carol", one_time_prekeys=False)
    talk(alice, bob)
    for device, refused in ((carol, True), (bob, True), (alice, False)):
        body = encode_device_lists((device.messenger.own_device_list().signed,))
        update = alice.seal(bob, content_from(alice, bob, kind=ContentKind.DEVICE_LIST_UPDATE, body=body).encode())
        if not refused:
            assert bob.receive(update).outcome is Outcome.CONSUMED
            continue
        with unchanged(bob, Table.UNREADABLE):
            assert isinstance(bob.receive(update).error, ForbiddenContentError)
    assert bob.messenger.contact(carol.user_id) is None


def test_a_message_of_the_one_direction_is_nothing_in_the_other() -> None:
    alice, bob = pair()
    talk(alice, bob)
    for sender, recipient in ((alice, bob), (bob, alice)):
        envelope = sender.encrypt(recipient, "hello")
        reflected = changed(envelope, sender=recipient.address, recipient=sender.address)
        with unchanged(sender, Table.UNREADABLE):
            reception = sender.receive(reflected)
            assert isinstance(reception.error, ProtocolError)
            assert reception.outcome is Outcome.UNREADABLE
