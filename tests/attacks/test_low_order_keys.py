"""Low-order, non-canonical and torsion-shifted X25519 keys in handshake and ratchet (docs/attacks.md, row 1)."""

from dataclasses import replace

import pytest

from e2ee.errors import AuthenticationError, InvalidPublicKeyError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.primitives import dh
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PreKeyMessage, RatchetMessage
from tests.curve25519_points import LOW_ORDER, shifted_by_torsion
from tests.world import Device, World, changed, talk, unchanged

HANDSHAKE_IDENTITY_KEY, HANDSHAKE_EPHEMERAL_KEY = 2 + 64, 2 + 96 + 8
"""Where these keys stand in a PreKeyMessage."""
RATCHET_KEY = 2
"""Where the ratchet key stands in a RatchetMessage."""


def pair() -> tuple[Device, Device]:
    world = World("low order")
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


def with_key(envelope: bytes, at: int, key: bytes) -> bytes:
    body = Envelope.decode(envelope).body
    return changed(envelope, body=body[:at] + key + body[at + 32 :])


def key_at(envelope: bytes, at: int) -> bytes:
    return Envelope.decode(envelope).body[at : at + 32]


def test_the_list_of_low_order_keys_is_complete() -> None:
    assert len(LOW_ORDER) == 5
    for key in LOW_ORDER:
        with pytest.raises(InvalidPublicKeyError):
            dh.exchange(b"\x01" * 32, key)


@pytest.mark.parametrize("low", LOW_ORDER, ids=lambda key: key[:4].hex())
@pytest.mark.parametrize("at", [HANDSHAKE_IDENTITY_KEY, HANDSHAKE_EPHEMERAL_KEY], ids=["identity", "ephemeral"])
def test_low_order_keys_in_a_handshake_are_refused(at: int, low: bytes) -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(with_key(envelope, at, low)).error, InvalidPublicKeyError)
    assert bob.receive(envelope).outcome is Outcome.STORED


@pytest.mark.parametrize("low", LOW_ORDER, ids=lambda key: key[:4].hex())
def test_low_order_keys_in_a_ratchet_header_are_refused(low: bytes) -> None:
    alice, bob = pair()
    talk(alice, bob)
    envelope = alice.encrypt(bob, "hello")
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(with_key(envelope, RATCHET_KEY, low)).error, InvalidPublicKeyError)
    assert bob.receive(envelope).outcome is Outcome.STORED


@pytest.mark.parametrize("low", LOW_ORDER, ids=lambda key: key[:4].hex())
def test_low_order_keys_in_a_bundle_start_no_session(low: bytes) -> None:
    """The one-time prekey is the one key of a bundle that a server can replace: nobody signs it."""
    world = World("low order")
    alice, bob = world.device("alice"), world.device("bob")
    alice.meet(bob)
    bundle = bob.bundle()
    assert bundle.one_time_prekey is not None
    poisoned = replace(bundle.one_time_prekey, public_key=type(bundle.one_time_prekey.public_key)(low))
    with unchanged(alice), pytest.raises(InvalidPublicKeyError):
        alice.messenger.start_session(replace(bundle, one_time_prekey=poisoned))


@pytest.mark.parametrize("at", [HANDSHAKE_IDENTITY_KEY, HANDSHAKE_EPHEMERAL_KEY], ids=["identity", "ephemeral"])
def test_a_handshake_key_with_the_high_bit_set_is_refused_although_libraries_ignore_that_bit(at: int) -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    key = key_at(envelope, at)
    masked = key[:31] + bytes([key[31] | 0x80])
    assert dh.exchange(b"\x01" * 32, masked) == dh.exchange(b"\x01" * 32, key)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(with_key(envelope, at, masked)).error, InvalidPublicKeyError)


def test_a_ratchet_key_with_the_high_bit_set_is_refused() -> None:
    alice, bob = pair()
    talk(alice, bob)
    envelope = alice.encrypt(bob, "hello")
    key = key_at(envelope, RATCHET_KEY)
    with unchanged(bob, Table.UNREADABLE):
        masked = with_key(envelope, RATCHET_KEY, key[:31] + bytes([key[31] | 0x80]))
        assert isinstance(bob.receive(masked).error, InvalidPublicKeyError)


@pytest.mark.parametrize("at", [HANDSHAKE_IDENTITY_KEY, HANDSHAKE_EPHEMERAL_KEY], ids=["identity", "ephemeral"])
def test_a_torsion_shifted_handshake_key_fails_authentication_although_every_secret_is_the_same(at: int) -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    key = key_at(envelope, at)
    shifted = shifted_by_torsion(key)
    assert shifted != key
    assert dh.exchange(b"\x01" * 32, shifted) == dh.exchange(b"\x01" * 32, key)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(with_key(envelope, at, shifted)).error, AuthenticationError)


def test_a_torsion_shifted_copy_of_a_read_first_message_starts_no_second_session() -> None:
    """H differs, so neither the session nor the replay memory knows it: only the transcript stops it."""
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    bob.receive(envelope)
    shifted = with_key(envelope, HANDSHAKE_EPHEMERAL_KEY, shifted_by_torsion(key_at(envelope, HANDSHAKE_EPHEMERAL_KEY)))
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(shifted).error, AuthenticationError)


def test_a_torsion_shifted_ratchet_key_fails_authentication() -> None:
    alice, bob = pair()
    talk(alice, bob)
    envelope = alice.encrypt(bob, "hello")
    shifted = with_key(envelope, RATCHET_KEY, shifted_by_torsion(key_at(envelope, RATCHET_KEY)))
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(shifted).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_the_offsets_of_this_file_are_where_the_keys_stand() -> None:
    alice, bob = pair()
    first = alice.encrypt(bob, "hello")
    parsed = PreKeyMessage.decode(Envelope.decode(first).body)
    assert parsed.handshake.identity_key.raw == key_at(first, HANDSHAKE_IDENTITY_KEY)
    assert parsed.handshake.ephemeral_key.raw == key_at(first, HANDSHAKE_EPHEMERAL_KEY)
    talk(alice, bob)
    envelope = alice.encrypt(bob, "hello")
    message = RatchetMessage.decode(Envelope.decode(envelope).body)
    assert message.header.ratchet_key.raw == key_at(envelope, RATCHET_KEY)
