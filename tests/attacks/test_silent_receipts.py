"""Attack: messages that nobody sees, to learn from what comes back when a device is there (docs/attacks.md, row 25)."""

import pytest

from e2ee.limits import DAY_MS, FRESH_SESSION_MS, PQ_ANSWER_MS
from e2ee.messenger import Outcome
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import EnvelopeId
from e2ee.wire.message import PqPayloadType, PreKeyMessage, decode_body
from tests.world import Device, World, changed, content_from, talk


def prober_and_victim() -> tuple[Device, Device]:
    """Mallory is about to write to bob for the first time."""
    world = World("silent receipts")
    mallory, bob = (world.device(name, one_time_prekeys=False) for name in ("mallory", "bob"))
    mallory.start_session(bob)
    bob.meet(mallory)
    return mallory, bob


def assert_silent(device: Device) -> None:
    """For two hours, the device sends nothing and fetches nothing."""
    for _ in range(3):
        tended = device.messenger.tend()
        assert (tended.queued, tended.lacks) == (0, False)
        device.world.wait(FRESH_SESSION_MS)
    assert device.messenger.outbox.entries() == []


def payload_type(envelope: bytes) -> int:
    body = decode_body(Envelope.decode(envelope).body)
    return (body.message if isinstance(body, PreKeyMessage) else body).header.pq_type


@pytest.mark.parametrize("kind", [*ContentKind, 99])
def test_no_content_of_any_kind_makes_a_device_answer_by_itself(kind: int) -> None:
    """Read or not, known or not, well-formed or not; a contact's as well as a stranger's."""
    mallory, bob = prober_and_victim()
    talk(mallory, bob)
    bodies = [b"", b"\x00", b"\xff" * 64]
    if kind == ContentKind.RETRY_REQUEST:
        bodies = [encode_retry_request((EnvelopeId(bytes(16)),))]
    for body in bodies:
        envelope = mallory.seal(bob, content_from(mallory, bob, kind=kind, body=body).encode())
        if bob.receive(envelope).outcome is not Outcome.UNREADABLE:
            bob.read()
            assert_silent(bob)


def test_a_stranger_gets_no_answer_to_post_quantum_payloads_until_we_write() -> None:
    mallory, bob = prober_and_victim()
    bob.receive(mallory.encrypt(bob, "hello"))
    mallory.world.wait(DAY_MS)
    probe = mallory.encrypt(bob, b"", ContentKind.EMPTY)
    assert payload_type(probe) == PqPayloadType.ENCAPSULATION_KEY
    assert bob.receive(probe).outcome is Outcome.CONSUMED
    assert_silent(bob)
    mallory.receive(bob.encrypt(mallory, "who are you?"))
    mallory.messenger.heal_now(bob.user_id)
    mallory.post()
    mallory.world.deliver()
    bob.world.wait(PQ_ANSWER_MS)
    assert bob.messenger.tend().queued == 1, "whom we have written to may know"


def test_a_stranger_whose_device_left_the_list_is_a_stranger_still() -> None:
    """Else a user who writes, and then replaces the device that wrote, would be told of it, and asked for garbage."""
    mallory, bob = prober_and_victim()
    bob.receive(mallory.encrypt(bob, "hello"))
    second = mallory.world.further_device(mallory)
    [entry] = [
        each for each in mallory.messenger.own_device_list().content.devices if each != mallory.messenger.account.listed
    ]
    mallory.change_list(entry)
    bob.meet(mallory)
    assert bob.messenger.contact_book.is_stranger(mallory.user_id)
    garbage = changed(mallory.encrypt(bob, "x"), sender=second.address)
    assert bob.receive(garbage).outcome is Outcome.UNREADABLE
    assert_silent(bob)


def test_a_stranger_is_asked_for_nothing_and_gets_no_session_until_we_write() -> None:
    mallory, bob = prober_and_victim()
    first = mallory.encrypt(bob, "hello")
    bob.receive(first)
    garbage = mallory.encrypt(bob, "x")
    body = Envelope.decode(garbage).body
    assert bob.receive(changed(garbage, body=body[:-1] + bytes([body[-1] ^ 1]))).outcome is Outcome.UNREADABLE
    assert_silent(bob)
    bob.encrypt(mallory, "who are you?")
    assert bob.messenger.tend().sessions_wanted == (mallory.address,), "it was not forgotten"
