"""Short authenticators, and authenticators over nothing (docs/attacks.md, rows 4, 13 and 14)."""

from e2ee.errors import AuthenticationError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import RatchetMessage
from tests.world import Device, World, changed, flip, talk, unchanged


def established() -> tuple[Device, Device]:
    world = World("authenticators")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def test_every_bit_of_the_16_byte_tag_and_of_the_commitment_counts() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    body = Envelope.decode(envelope).body
    commitment_at = 8 * (len(RatchetMessage.decode(body).prefix) - 12 - 32)
    bits = [*range(8 * len(body) - 128, 8 * len(body)), *range(commitment_at, commitment_at + 256)]
    with unchanged(bob, Table.UNREADABLE):
        for bit in bits:
            assert isinstance(bob.receive(changed(envelope, body=flip(body, bit))).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_a_truncated_ciphertext_or_tag_is_refused() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "h" * 1000)
    body = Envelope.decode(envelope).body
    with unchanged(bob, Table.UNREADABLE):
        for less in (1, 8, 15, 16, 17, 500):
            assert bob.receive(changed(envelope, body=body[:-less])).outcome is Outcome.UNREADABLE


def test_the_nonce_and_every_header_field_are_authenticated() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "hello")
    body = Envelope.decode(envelope).body
    prefix = RatchetMessage.decode(body).prefix
    with unchanged(bob, Table.UNREADABLE):
        for bit in range(8 * len(prefix)):
            assert bob.receive(changed(envelope, body=flip(body, bit))).outcome is Outcome.UNREADABLE, bit
    assert bob.receive(envelope).outcome is Outcome.STORED
