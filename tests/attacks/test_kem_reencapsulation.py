"""Re-encapsulation and confusion of KEM keys in the handshake (docs/attacks.md, row 22)."""

from dataclasses import replace

from e2ee.errors import AuthenticationError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.private_keys import encapsulate
from e2ee.stores import records
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PreKeyMessage
from tests.world import World, changed, unchanged


def test_another_ciphertext_for_the_same_key_fails_authentication() -> None:
    world = World("kem")
    alice, bob = world.device("alice"), world.device("bob")
    bundle = bob.bundle()
    alice.meet(bob)
    alice.messenger.start_session(bundle)
    envelope = alice.encrypt(bob, "hello")
    message = PreKeyMessage.decode(Envelope.decode(envelope).body)
    _, other = encapsulate(bundle.kem_prekey.public_key)
    forged = PreKeyMessage(replace(message.handshake, kem_ciphertext=other), message.message)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(changed(envelope, body=forged.encode())).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_a_ciphertext_re_encapsulated_to_another_kem_key_of_the_same_device_fails_authentication() -> None:
    """An attacker who knows the shared secret of one key could aim it at another; the transcript names the key."""
    world = World("kem")
    alice, bob = world.device("alice"), world.device("bob")
    envelope = alice.encrypt(bob, "hello")
    other = bob.bundle().kem_prekey
    message = PreKeyMessage.decode(Envelope.decode(envelope).body)
    forged = PreKeyMessage(replace(message.handshake, kem_prekey_id=other.prekey_id), message.message)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(changed(envelope, body=forged.encode())).error, AuthenticationError)


def test_the_same_private_key_under_another_id_fails_authentication() -> None:
    """Even with every secret equal, both ends must agree on the id that names the key."""
    world = World("kem")
    alice, bob = world.device("alice"), world.device("bob")
    envelope = alice.encrypt(bob, "hello")
    message = PreKeyMessage.decode(Envelope.decode(envelope).body)
    with bob.store.write() as tx:
        held = records.load_prekey(tx, message.handshake.kem_prekey_id)
        assert held is not None
        copy = replace(held, prekey_id=records.fresh_prekey_id(tx, world.random.randbytes))
        records.save_prekey(tx, copy)
    forged = PreKeyMessage(replace(message.handshake, kem_prekey_id=copy.prekey_id), message.message)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(changed(envelope, body=forged.encode())).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED
