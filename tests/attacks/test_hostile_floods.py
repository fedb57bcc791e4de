"""Making a device store or compute without bound (docs/attacks.md, rows 5 and 27)."""

import pytest

from e2ee.errors import KeyEvictedError
from e2ee.limits import MAX_PENDING_TRUST, MAX_SKIP, MAX_SKIPPED_KEYS, MAX_UNREADABLE
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.primitives.kdf import kdf_pair
from e2ee.stores import message_records
from e2ee.wire.envelope import Envelope
from tests.world import Device, World, changed, flip, talk, unchanged


def established() -> tuple[Device, Device]:
    world = World("floods")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def test_more_skipped_messages_than_are_kept_lose_the_oldest_with_an_error_of_its_own() -> None:
    alice, bob = established()
    early = late = alice.encrypt(bob, "early")
    for _ in range(3):
        late, *_ = [alice.encrypt(bob, "skipped") for _ in range(MAX_SKIP - 1)]
        assert bob.receive(alice.encrypt(bob, "next")).outcome is Outcome.STORED
    assert bob.messenger.status().skipped_keys > 2 * MAX_SKIPPED_KEYS, "keys of two maps, and marks of the evicted"
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(early).error, KeyEvictedError)
    assert bob.receive(late).outcome is Outcome.STORED


def test_a_forged_header_costs_at_most_the_skip_limit_in_each_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = established()
    steps: list[bytes] = []

    def counted(chain_key: bytes, step: bytes) -> tuple[bytes, bytes]:
        steps.append(step)
        return kdf_pair(chain_key, step)

    monkeypatch.setattr("e2ee.ratchet.chains.kdf_pair", counted)
    envelope = alice.encrypt(bob, "hello")
    body = Envelope.decode(envelope).body
    for index in (MAX_SKIP - 1, MAX_SKIP, 0xFFFFFFFF):
        forged = body[:34] + index.to_bytes(4, "big") * 2 + body[42:46] + index.to_bytes(4, "big") + body[50:]
        steps.clear()
        with unchanged(bob, Table.UNREADABLE):
            assert bob.receive(changed(envelope, body=forged)).outcome is Outcome.UNREADABLE
        assert bool(steps) is (index < 2 * MAX_SKIP)
        assert len(steps) <= 2 * (MAX_SKIP + 1), "the chain that it names and the post-quantum one, not the one before"
    assert len(steps) == 0, "beyond the limit, no chain is touched"


def test_unreadable_envelopes_from_made_up_senders_are_remembered_up_to_a_bound() -> None:
    alice, bob = established()
    envelope = Envelope.decode(alice.wrap(bob, b"junk"))
    with bob.store.write() as tx:
        for number in range(MAX_UNREADABLE):
            message_records.remember_unreadable(tx, envelope_with_id(envelope, number), "malformed_message", number)
    for number in range(5):
        bob.receive(envelope_with_id(envelope, MAX_UNREADABLE + number).encode())
    assert bob.messenger.status().unreadable == MAX_UNREADABLE


def envelope_with_id(envelope: Envelope, number: int) -> Envelope:
    return Envelope.decode(
        changed(envelope.encode(), envelope_id=type(envelope.envelope_id)(number.to_bytes(16, "big")))
    )


def test_first_messages_under_a_changed_key_are_kept_up_to_a_bound_and_then_only_named() -> None:
    alice, bob = established()
    impostor = alice.world.device("alice", one_time_prekeys=False, listed=False)
    envelopes = [impostor.encrypt(bob, str(number)) for number in range(MAX_PENDING_TRUST + 3)]
    outcomes = [bob.receive(envelope).outcome for envelope in envelopes]
    assert outcomes == [Outcome.WAITING_FOR_TRUST] * MAX_PENDING_TRUST + [Outcome.UNREADABLE] * 3
    assert len(bob.snapshot()[Table.PENDING_TRUST]) == MAX_PENDING_TRUST


def test_a_poison_message_is_recorded_once_and_never_raises() -> None:
    alice, bob = established()
    poison = flip(alice.encrypt(bob, "hello"), 8 * 400)
    bob.receive(poison)
    recorded = bob.snapshot()
    for _ in range(20):
        bob.world.wait(0)
        assert bob.receive(poison).outcome is Outcome.UNREADABLE
    assert bob.snapshot() == recorded


def test_records_of_refused_envelopes_are_the_only_trace_of_a_flood_of_junk() -> None:
    alice, bob = established()
    random = alice.world.random
    genuine = [alice.encrypt(bob, str(number)) for number in range(5)]
    body_at = len(genuine[0]) - len(Envelope.decode(genuine[0]).body)
    with unchanged(bob, Table.UNREADABLE):
        for _ in range(400):
            junk = flip(random.choice(genuine), random.randrange(8 * body_at, 8 * len(genuine[0])))
            assert bob.receive(junk).outcome is Outcome.UNREADABLE
    assert bob.messenger.status().unreadable == len(genuine)
    assert [bob.receive(envelope).outcome for envelope in genuine] == [Outcome.STORED] * 5
