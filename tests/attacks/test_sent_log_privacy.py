"""Attack: getting at what was said long ago through the log that lets messages be sent again (docs/attacks.md)."""

from e2ee.limits import LATE_ENVELOPE_MS, SENT_CONTENT_MS
from e2ee.messenger import Messenger, Outcome
from e2ee.notices import MessageNotResent
from e2ee.stores import sent_records
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.envelope import Envelope
from tests.world import Device, World, talk


def established() -> tuple[Device, Device, bytes]:
    """Alice has said something."""
    world = World("sent log")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob, alice.encrypt(bob, "said")


def is_kept(device: Device, envelope: bytes) -> bool:
    with device.store.read() as tx:
        return sent_records.sent_content(tx, Envelope.decode(envelope).envelope_id) is not None


def test_what_was_said_is_forgotten_in_time_although_the_relay_never_lets_the_inbox_drain() -> None:
    """Upkeep that waits for the inbox is the relay's to delay, so this must not be part of it."""
    alice, _, said = established()
    alice.world.wait(SENT_CONTENT_MS)
    alice.messenger.tend()
    assert is_kept(alice, said)
    alice.world.wait(1)
    alice.messenger.tend()
    assert not is_kept(alice, said)


def test_what_was_said_is_forgotten_by_a_device_that_never_comes_online_again() -> None:
    alice, _, said = established()
    alice.world.wait(SENT_CONTENT_MS + 1)
    alice.messenger.outbox.expire()
    assert not is_kept(alice, said)


def test_what_was_said_is_forgotten_as_soon_as_the_log_is_switched_off() -> None:
    alice, _, said = established()
    assert is_kept(alice, said)
    alice.messenger = Messenger.open(
        alice.store, rng=alice.world.random.randbytes, clock=alice.world.clock, sent_log=False
    )
    alice.messenger.outbox.expire()
    assert not is_kept(alice, said)


def test_who_asks_for_what_was_said_too_long_ago_gets_nothing() -> None:
    """Neither a contact nor who holds the secrets of the present session, though the device was off in between."""
    for age in (SENT_CONTENT_MS + 1, LATE_ENVELOPE_MS):
        alice, bob, said = established()
        bob.world.wait(age)
        bob.start_session(alice)
        body = encode_retry_request((Envelope.decode(said).envelope_id,))
        assert alice.receive(bob.encrypt(alice, body, ContentKind.RETRY_REQUEST)).outcome is Outcome.CONSUMED
        tended = alice.messenger.tend()
        assert tended.queued == 0
        assert [type(each) for each in tended.notices] == [MessageNotResent]
