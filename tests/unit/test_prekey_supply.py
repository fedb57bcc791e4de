"""Prekeys: made in time, published byte-identically, ids used once, retired when no late envelope needs them."""

import pytest

from e2ee.account import PreKeyKind, generate_prekey
from e2ee.limits import (
    LATE_ENVELOPE_MS,
    MAX_CLAIMED_ONE_TIME_PREKEYS,
    ONE_TIME_PREKEY_BATCH,
    ONE_TIME_PREKEY_LOW,
    PREKEY_LIFETIME_MS,
    PREKEY_ROTATION_MS,
)
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.prekey_supply import PreKeyPublication, ServerCounts
from e2ee.private_keys import PreKeyPair
from e2ee.rollback import RelayStatement
from e2ee.stores import records, session_records
from e2ee.wire.identifiers import PreKeyId
from tests.world import START, Device, World

FULL = ServerCounts(ONE_TIME_PREKEY_BATCH, ONE_TIME_PREKEY_BATCH)
ENOUGH = ServerCounts(ONE_TIME_PREKEY_LOW, ONE_TIME_PREKEY_LOW)


def device() -> Device:
    return World("prekey supply").device("bob")


def publish(messenger: Messenger, counts: ServerCounts = ENOUGH) -> PreKeyPublication:
    publication = messenger.registration.due_prekeys(counts)
    messenger.registration.prekeys_published(publication.prekey_ids)
    return publication


def held(bob: Device, kind: PreKeyKind) -> int:
    with bob.store.read() as tx:
        return len(list(records.prekeys(tx, kind)))


def test_a_new_device_publishes_all_four_kinds_once() -> None:
    bob = device()
    publication = publish(bob.messenger, ServerCounts(0, 0))
    assert publication.signed_prekey is not None
    assert publication.last_resort is not None
    assert len(publication.one_time_prekeys) == len(publication.one_time_kem_prekeys) == ONE_TIME_PREKEY_BATCH
    assert bob.messenger.registration.due_prekeys(FULL).is_empty


def test_a_repeated_publication_is_byte_identical_even_after_a_restart() -> None:
    bob = device()
    first = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    bob.world.wait(1000)
    bob.restart()
    assert bob.messenger.registration.due_prekeys(ServerCounts(0, 0)) == first


def test_signatures_verify_under_the_device_signing_key() -> None:
    bob = device()
    publication = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    key = bob.messenger.account.device_signing_key_pair.public
    several = (publication.signed_prekey, publication.last_resort, *publication.one_time_kem_prekeys[:3])
    for prekey in several:
        assert prekey is not None
        prekey.verify(bob.address, key)
        assert prekey.expires_at == START + PREKEY_LIFETIME_MS


def test_signed_and_last_resort_prekeys_rotate_weekly() -> None:
    bob = device()
    first = publish(bob.messenger)
    bob.world.wait(PREKEY_ROTATION_MS - 1)
    assert publish(bob.messenger).is_empty
    bob.world.wait(1)
    second = publish(bob.messenger)
    assert second.signed_prekey is not None
    assert second.last_resort is not None
    assert first.signed_prekey is not None
    assert second.signed_prekey.prekey_id != first.signed_prekey.prekey_id
    assert publish(bob.messenger).is_empty


def test_a_prekey_that_was_replaced_before_the_server_saw_it_is_never_published() -> None:
    """Otherwise the server would go back to an older key that the device deletes before it expires."""
    bob = device()
    bob.messenger.registration.due_prekeys(ENOUGH)  # the upload fails, and the device is offline for a week
    bob.world.wait(PREKEY_ROTATION_MS)
    newest = publish(bob.messenger)
    assert newest.signed_prekey is not None
    assert bob.messenger.registration.due_prekeys(ENOUGH).is_empty


def test_replaced_private_halves_live_45_days_longer() -> None:
    bob = device()
    publish(bob.messenger)
    bob.world.wait(PREKEY_ROTATION_MS)
    publish(bob.messenger)
    bob.world.wait(LATE_ENVELOPE_MS)
    bob.messenger.prune()
    assert held(bob, PreKeyKind.SIGNED) == held(bob, PreKeyKind.LAST_RESORT_KEM) == 2
    bob.world.wait(1)
    bob.messenger.prune()
    assert held(bob, PreKeyKind.SIGNED) == held(bob, PreKeyKind.LAST_RESORT_KEM) == 1


def test_the_current_prekeys_are_never_retired_however_long_the_device_was_away() -> None:
    bob = device()
    publish(bob.messenger)
    bob.world.wait(10 * PREKEY_LIFETIME_MS)
    bob.messenger.prune()
    assert held(bob, PreKeyKind.SIGNED) == held(bob, PreKeyKind.LAST_RESORT_KEM) == 1


@pytest.mark.parametrize(("left", "made"), [(0, 100), (24, 76), (25, 0), (100, 0), (200, 0)])
def test_one_time_prekeys_are_replenished_below_the_low_mark(left: int, made: int) -> None:
    bob = device()
    publication = publish(bob.messenger, ServerCounts(left, ONE_TIME_PREKEY_LOW))
    assert len(publication.one_time_prekeys) == made
    assert publication.one_time_kem_prekeys == ()


def test_unconfirmed_one_time_prekeys_count_so_that_a_failing_upload_makes_no_more() -> None:
    bob = device()
    for _ in range(3):
        assert (
            len(bob.messenger.registration.due_prekeys(ServerCounts(0, 25)).one_time_prekeys) == ONE_TIME_PREKEY_BATCH
        )
    assert held(bob, PreKeyKind.ONE_TIME) == ONE_TIME_PREKEY_BATCH


def test_a_batch_waits_until_the_unconfirmed_ones_run_low_too() -> None:
    bob = device()
    assert len(bob.messenger.registration.due_prekeys(ServerCounts(24, 25)).one_time_prekeys) == 76
    assert len(bob.messenger.registration.due_prekeys(ServerCounts(0, 25)).one_time_prekeys) == 76


def test_at_most_2000_private_halves_of_one_time_prekeys_are_kept_and_the_oldest_go() -> None:
    bob = device()
    rng = bob.world.random.randbytes
    with bob.store.write() as tx:
        for number in range(MAX_CLAIMED_ONE_TIME_PREKEYS + 5):
            records.save_prekey(tx, generate_prekey(PreKeyKind.ONE_TIME, PreKeyId(number), START + number, rng))
    bob.messenger.prune()
    with bob.store.read() as tx:
        assert [each.prekey_id for each in records.prekeys(tx, PreKeyKind.ONE_TIME)] == list(
            range(5, MAX_CLAIMED_ONE_TIME_PREKEYS + 5)
        )


def test_ids_of_all_kinds_share_one_space_and_are_drawn_until_unused() -> None:
    bob = device()
    publication = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    assert len(set(publication.prekey_ids)) == len(publication.prekey_ids) == 202
    taken = publication.prekey_ids[0].to_bytes(4, "big")
    draws = iter((taken, taken, b"\0\0\0\0", b"\0\0\0\0", b"\0\0\0\1"))
    with bob.store.write() as tx:
        assert [records.fresh_prekey_id(tx, lambda _: next(draws)) for _ in range(2)] == [0, 1]


def test_ids_stay_used_after_their_prekeys_are_gone() -> None:
    bob = device()
    first = publish(bob.messenger)
    assert first.signed_prekey is not None
    for _ in range(2):
        bob.world.wait(PREKEY_ROTATION_MS + LATE_ENVELOPE_MS + 1)
        publish(bob.messenger)
        bob.messenger.prune()
    with bob.store.read() as tx:
        assert records.load_prekey(tx, first.signed_prekey.prekey_id) is None
        assert tx.get(Table.USED_PREKEY_IDS, first.signed_prekey.prekey_id.to_bytes(4, "big")) is not None


def test_a_last_resort_key_with_a_full_memory_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_records, "MAX_REPLAY_ENTRIES", 3)
    bob = device()
    first = publish(bob.messenger).last_resort
    assert first is not None
    with bob.store.write() as tx:
        for number in range(3):
            session_records.remember_handshake(tx, first.prekey_id, bytes([number]) * 32, bob.world.now)
    bob.world.wait(1)
    second = publish(bob.messenger)
    assert second.last_resort is not None
    assert second.signed_prekey is None, "only the worn-out key rotates"


def test_confirming_a_prekey_that_was_used_up_meanwhile_is_harmless() -> None:
    bob = device()
    publication = bob.messenger.registration.due_prekeys(ServerCounts(0, 25))
    used = publication.one_time_prekeys[0]
    with bob.store.write() as tx:
        records.delete_prekey(tx, used.prekey_id)
    bob.messenger.registration.prekeys_published(publication.prekey_ids)
    assert held(bob, PreKeyKind.ONE_TIME) == ONE_TIME_PREKEY_BATCH - 1


def test_public_forms_refuse_the_wrong_kind_of_pair() -> None:
    bob = device()
    account, rng = bob.messenger.account, bob.world.random.randbytes
    one_time, kem = (
        generate_prekey(kind, PreKeyId(1), START, rng) for kind in (PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM)
    )
    assert isinstance(one_time.pair, PreKeyPair)
    for make, wrong in ((account.signed_prekey, kem), (account.one_time_prekey, kem), (account.kem_prekey, one_time)):
        with pytest.raises(TypeError):
            make(wrong)


def test_rotating_prekeys_that_a_restored_server_has_forgotten_are_published_again_byte_identically() -> None:
    bob = device()
    first = publish(bob.messenger, ServerCounts(0, 0))
    assert first.signed_prekey is not None
    assert first.last_resort is not None
    both = [first.signed_prekey.prekey_id, first.last_resort.prekey_id]
    assert bob.messenger.registration.due_prekeys(FULL, both).is_empty
    again = bob.messenger.registration.due_prekeys(FULL, [both[0], PreKeyId(1)])
    assert (again.signed_prekey, again.last_resort) == (None, first.last_resort)
    again = bob.messenger.registration.due_prekeys(FULL, [])
    assert (again.signed_prekey, again.last_resort) == (first.signed_prekey, first.last_resort)
    bob.messenger.registration.prekeys_published(again.prekey_ids)
    assert bob.messenger.registration.due_prekeys(FULL).is_empty


def test_one_time_prekeys_that_were_never_confirmed_are_not_published_after_a_new_epoch() -> None:
    # The server may have had them, handed them out, and been restored to before that.
    bob = device()
    bob.messenger.delivery.note_connected(RelayStatement(epoch=5, settled_through=0))
    unconfirmed = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    bob.messenger.delivery.note_connected(RelayStatement(epoch=5, settled_through=0))
    assert bob.messenger.registration.due_prekeys(ServerCounts(0, 0)) == unconfirmed, "the same epoch: a retry"
    bob.messenger.delivery.note_connected(RelayStatement(epoch=6, settled_through=0))
    fresh = bob.messenger.registration.due_prekeys(ServerCounts(0, 0))
    assert len(fresh.one_time_prekeys) == len(fresh.one_time_kem_prekeys) == ONE_TIME_PREKEY_BATCH
    both = {*unconfirmed.one_time_prekeys, *unconfirmed.one_time_kem_prekeys}
    assert both.isdisjoint({*fresh.one_time_prekeys, *fresh.one_time_kem_prekeys})
    assert held(bob, PreKeyKind.ONE_TIME) == 2 * ONE_TIME_PREKEY_BATCH, "a first message to the old ones is still read"
    assert (fresh.signed_prekey, fresh.last_resort) == (unconfirmed.signed_prekey, unconfirmed.last_resort)
