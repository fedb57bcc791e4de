"""Draining a device's one-time prekeys, and what their ids give away (docs/attacks.md, row 18)."""

from itertools import pairwise

from e2ee.messenger import Outcome
from e2ee.prekey_supply import ServerCounts
from e2ee.wire.prekey_bundle import KemPreKeyKind
from tests.world import World


def test_a_drained_device_stays_reachable_and_is_told_to_replenish() -> None:
    world = World("depletion")
    alice, bob = world.device("alice"), world.device("bob")
    bob.publish()
    for _ in range(100):
        bob.bundle()
    drained = bob.bundle()
    assert drained.one_time_prekey is None
    assert drained.kem_prekey.kind is KemPreKeyKind.LAST_RESORT
    alice.meet(bob)
    alice.messenger.start_session(drained)
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
    publication = bob.publish()
    assert len(publication.one_time_prekeys) == len(publication.one_time_kem_prekeys) == 100
    assert bob.bundle().one_time_prekey is not None


def test_ids_tell_neither_how_many_there_were_nor_in_which_order_they_were_made() -> None:
    bob = World("ids").device("bob")
    publication = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    ids = sorted(int(each) for each in publication.prekey_ids)
    gaps = [later - earlier for earlier, later in pairwise(ids)]
    assert min(gaps) > 1, "not sequential"
    assert len(set(gaps)) == len(gaps), "and in no arithmetic pattern"
    assert ids[0] < 1 << 28 < 15 << 28 < ids[-1], "drawn from all of u32"
    one_time = [int(each.prekey_id) for each in publication.one_time_prekeys]
    kem = [int(each.prekey_id) for each in publication.one_time_kem_prekeys]
    assert max(one_time) > min(kem)
    assert max(kem) > min(one_time), "the kinds were not numbered one after the other"


def test_private_halves_of_claimed_prekeys_outlive_the_draining() -> None:
    """Claims that come to nothing must not invalidate the bundles that honest senders hold."""
    world = World("depletion")
    alice, bob = world.device("alice"), world.device("bob")
    bob.publish()
    alice.meet(bob)
    honest = bob.bundle()
    for _ in range(5):
        for _ in range(100):
            bob.bundle()
        bob.publish()
    bob.messenger.prune()
    alice.messenger.start_session(honest)
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
