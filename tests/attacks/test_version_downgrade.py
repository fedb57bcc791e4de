"""Downgrades: another version or a weaker handshake must not be accepted anywhere (docs/attacks.md, rows 2 and 28)."""

import pytest

from e2ee import persist
from e2ee.errors import AuthenticationError, CorruptStateError, MalformedMessageError, UnsupportedVersionError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.pqxdh import PQXDH_INFO
from e2ee.wire.envelope import Envelope
from e2ee.wire.prekey_bundle import PreKeyBundle
from tests.world import Device, World, changed, talk, unchanged


def pair() -> tuple[Device, Device]:
    world = World("downgrade")
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_of_a_body_is_refused_whatever_its_type(version: int) -> None:
    alice, bob = pair()
    first = alice.encrypt(bob, "first")
    with unchanged(bob, Table.UNREADABLE):
        body = bytes([version]) + Envelope.decode(first).body[1:]
        assert isinstance(bob.receive(changed(first, body=body)).error, UnsupportedVersionError)
    bob.receive(first)
    alice.receive(bob.encrypt(alice, "reply"))
    later = alice.encrypt(bob, "later")
    with unchanged(bob, Table.UNREADABLE):
        body = bytes([version]) + Envelope.decode(later).body[1:]
        assert isinstance(bob.receive(changed(later, body=body)).error, UnsupportedVersionError)


def test_the_suite_is_bound_into_the_keys() -> None:
    for part in (b"E2EE/1", b"PQXDH", b"X25519", b"ML-KEM-1024", b"SHA-512"):
        assert part in PQXDH_INFO


def test_a_bundle_without_its_post_quantum_key_does_not_even_parse() -> None:
    _, bob = pair()
    encoded = bob.bundle().encode()
    kem = bob.world.directory.prekeys[bob.address].last_resort.encode()
    assert encoded.endswith(kem)
    with pytest.raises(MalformedMessageError):
        PreKeyBundle.decode(encoded[: -len(kem)])


def test_a_one_time_prekey_cannot_be_stripped_from_a_handshake() -> None:
    world = World("downgrade")
    alice, bob = world.device("alice"), world.device("bob")
    envelope = alice.encrypt(bob, "hello")
    body = bytearray(Envelope.decode(envelope).body)
    at = 2 + 96 + 8 + 32 + 4
    assert body[at] == 1
    body[at : at + 5] = bytes(5)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(changed(envelope, body=bytes(body))).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_stored_state_without_a_version_is_never_guessed() -> None:
    alice, bob = pair()
    talk(alice, bob)
    for table, key in ((Table.ACCOUNT, None), (Table.SESSIONS, None)):
        row = alice.snapshot()[table][0]
        with alice.store.write() as tx:
            tx.put(table, key or row.key, row.value[1:], group=row.group, order=row.order)
    with pytest.raises(CorruptStateError):
        alice.restart()
    with pytest.raises(CorruptStateError):
        alice.sessions(bob)
    assert persist.encode_account(bob.messenger.account)[0] == 1
