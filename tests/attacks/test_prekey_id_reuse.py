"""Prekey ids that come back, after a crash or by replacement (docs/attacks.md, rows 21 and 27)."""

import pytest

from e2ee.errors import StoreUnavailableError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.prekey_supply import ServerCounts
from tests.breaking_store import BreakingStore
from tests.world import World


def test_a_crash_between_upload_and_confirmation_repeats_the_same_bytes() -> None:
    bob = World("reuse").device("bob")
    uploaded = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    bob.restart()  # the server has them, and the device does not know it
    again = bob.messenger.registration.due_prekeys(ServerCounts(100, 100))
    assert again == uploaded


def test_nothing_leaves_the_device_before_it_is_stored() -> None:
    disk = BreakingStore()
    bob = World("reuse").device("bob", one_time_prekeys=False, store=disk)
    disk.puts_left = 3
    before = bob.snapshot()
    with pytest.raises(StoreUnavailableError):
        bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    assert bob.snapshot() == before


def test_a_used_prekey_is_never_replaced_under_the_same_id() -> None:
    world = World("reuse")
    alice, bob = world.device("alice"), world.device("bob")
    bundle = bob.bundle()
    alice.meet(bob)
    alice.messenger.start_session(bundle)
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
    assert bundle.one_time_prekey is not None
    used = {bundle.one_time_prekey.prekey_id, bundle.kem_prekey.prekey_id}
    for _ in range(3):
        for _ in range(100):
            bob.bundle()
        assert not used & set(bob.publish().prekey_ids)


def test_even_a_random_source_that_repeats_itself_yields_no_id_twice() -> None:
    world = World("reuse")
    bob = world.device("bob")
    first = bob.publish()
    world.random.seed("reuse")  # as after a restored snapshot of a machine
    world.random.randbytes(16 + 3 * 32)
    second = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    assert not set(first.prekey_ids) & set(second.prekey_ids)
    assert len(bob.snapshot()[Table.USED_PREKEY_IDS]) == 202 + 200
