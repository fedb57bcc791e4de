"""Publishing prekeys and claiming bundles, over HTTP against the application in this process."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2ee.limits import DAY_MS, HOUR_MS
from e2ee.wire.identifiers import UserId
from e2ee.wire.prekey_bundle import KemPreKeyKind, OneTimePreKey
from keyserver.client import (
    Claim,
    KeyServerRefusedError,
    PreKeyConflictError,
    PreKeyCounts,
    PreKeyUpload,
    RateLimitedError,
)
from keyserver.housekeeping import clean
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import World, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def one_time(claim: Claim) -> OneTimePreKey | None:
    (bundle,) = claim.bundles
    return bundle.one_time_prekey


async def housekeeping(server: World) -> None:
    await server.app.services.database.write(lambda connection: clean(connection, server.clock()))


# --- Publishing ----------------------------------------------------------------------------------------------


async def test_counts_tell_what_is_offered(server: World) -> None:
    device, client = await server.join("alice")
    assert await client.prekey_counts() == PreKeyCounts(0, 0, None, None)
    upload = device.upload(one_time=3, one_time_kem=2)
    assert upload.signed_prekey is not None
    assert upload.last_resort is not None
    expected = PreKeyCounts(3, 2, upload.signed_prekey.prekey_id, upload.last_resort.prekey_id)
    assert await client.publish_prekeys(upload) == expected
    assert await client.prekey_counts() == expected


async def test_the_same_bytes_again_change_nothing(server: World) -> None:
    device, client = await server.join("alice")
    upload = device.upload(3, 2)
    counts = await client.publish_prekeys(upload)
    assert await client.publish_prekeys(upload) == counts


async def test_a_conflict_in_one_prekey_stores_nothing_of_the_upload(server: World) -> None:
    device, client = await server.join("alice")
    upload = device.upload(3)
    counts = await client.publish_prekeys(upload)
    (fresh,) = device.one_time_prekeys(1)
    (other,) = device.one_time_prekeys(1)
    clash = OneTimePreKey(upload.one_time_prekeys[0].prekey_id, other.public_key)
    with pytest.raises(PreKeyConflictError) as refused:
        await client.publish_prekeys(PreKeyUpload(device.signed_prekey(), (fresh, clash)))
    assert refused.value.prekey_id == clash.prekey_id
    assert await client.prekey_counts() == counts


async def test_the_newest_signed_prekeys_are_served_and_a_late_retry_of_the_old_ones_changes_nothing(
    server: World,
) -> None:
    bob, bobs = await server.join("bob")
    _, alices = await server.join("alice")
    old, new = bob.upload(0), bob.upload(0)
    for upload in (old, new, old):
        await bobs.publish_prekeys(upload)
    (bundle,) = (await alices.claim(bob.user.user_id, request_id(1))).bundles
    assert bundle.signed_prekey == new.signed_prekey
    assert bundle.kem_prekey == new.last_resort


async def test_at_most_200_one_time_prekeys_of_a_kind_are_offered(server: World) -> None:
    device, client = await server.join("alice")
    for _ in range(2):
        await client.publish_prekeys(PreKeyUpload(one_time_prekeys=device.one_time_prekeys(100)))
    with pytest.raises(KeyServerRefusedError) as refused:
        await client.publish_prekeys(PreKeyUpload(one_time_prekeys=device.one_time_prekeys(1)))
    assert refused.value.code == "too_many_prekeys"
    assert (await client.prekey_counts()).one_time == 200


async def test_a_full_upload_of_all_kinds_fits(server: World) -> None:
    device, client = await server.join("alice")
    upload = device.upload(one_time=100, one_time_kem=100)
    counts = await client.publish_prekeys(upload)
    assert (counts.one_time, counts.one_time_kem) == (100, 100)


async def test_expired_prekeys_are_refused_unless_they_were_published_before(server: World) -> None:
    device, client = await server.join("alice")
    expiring = PreKeyUpload(device.signed_prekey(server.clock() + HOUR_MS))
    await client.publish_prekeys(expiring)
    server.clock.pass_ms(HOUR_MS)
    counts = await client.publish_prekeys(expiring)
    assert counts.signed_prekey_id is None
    for upload in (
        PreKeyUpload(device.signed_prekey(server.clock())),
        PreKeyUpload(last_resort=device.kem_prekey(expires_at=server.clock())),
    ):
        with pytest.raises(KeyServerRefusedError) as refused:
            await client.publish_prekeys(upload)
        assert refused.value.code == "prekey_expired"


# --- Claiming ------------------------------------------------------------------------------------------------


async def test_a_claim_brings_the_list_and_a_bundle_that_verifies(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(1, 1)
    await bobs.publish_prekeys(upload)
    _, alices = await server.join("alice")
    claim = await alices.claim(bob.user.user_id, request_id(1))
    assert claim.device_list is not None
    (bundle,) = claim.bundles
    bundle.verify(claim.device_list.verify(bob.user.user_id), server.clock())
    assert (bundle.signed_prekey, bundle.one_time_prekey, bundle.kem_prekey) == (
        upload.signed_prekey,
        upload.one_time_prekeys[0],
        upload.one_time_kem_prekeys[0],
    )


async def test_when_one_time_prekeys_run_out_the_last_resort_keeps_the_user_reachable(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(1, 1)
    await bobs.publish_prekeys(upload)
    _, alices = await server.join("alice")
    await alices.claim(bob.user.user_id, request_id(1))
    for number in (2, 3):
        (bundle,) = (await alices.claim(bob.user.user_id, request_id(number))).bundles
        assert bundle.one_time_prekey is None
        assert bundle.kem_prekey == upload.last_resort
    counts = await bobs.prekey_counts()
    assert (counts.one_time, counts.one_time_kem) == (0, 0)


async def test_the_oldest_one_time_prekeys_are_claimed_first(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(0))
    _, alices = await server.join("alice")
    batches = [bob.one_time_prekeys(2) for _ in range(3)]
    for batch in batches:
        await bobs.publish_prekeys(PreKeyUpload(one_time_prekeys=batch))
        server.clock.pass_ms(1)
    claimed = [one_time(await alices.claim(bob.user.user_id, request_id(number))) for number in range(6)]
    for position, batch in enumerate(batches):
        assert set(claimed[2 * position : 2 * position + 2]) == set(batch)


async def test_a_repeated_claim_gets_the_same_bundles_even_when_everything_else_changed(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(5, 5))
    _, alices = await server.join("alice")
    first = await alices.claim(bob.user.user_id, request_id(1))
    await bobs.publish_prekeys(bob.upload(0))
    laptop = bob.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await laptops.publish_prekeys(laptop.upload())
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    server.clock.pass_ms(HOUR_MS)
    await housekeeping(server)
    again = await alices.claim(bob.user.user_id, request_id(1))
    assert again.bundles == first.bundles
    assert again.device_list == bob.user.lists[-1]
    fresh = (await alices.claim(bob.user.user_id, request_id(2))).bundles
    assert {each.address for each in fresh} == {bob.address, laptop.address}


async def test_a_claim_can_be_repeated_for_a_day_and_its_keys_never_come_back(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(2)
    await bobs.publish_prekeys(upload)
    _, alices = await server.join("alice")
    first = await alices.claim(bob.user.user_id, request_id(1))
    server.clock.pass_ms(DAY_MS)
    await housekeeping(server)
    assert await alices.claim(bob.user.user_id, request_id(1)) == first
    server.clock.pass_ms(1)
    await housekeeping(server)
    second = await alices.claim(bob.user.user_id, request_id(1))
    assert {one_time(first), one_time(second)} == set(upload.one_time_prekeys)
    # The tombstones outlive the bytes: uploading the spent keys again offers nothing.
    server.clock.pass_ms(2 * DAY_MS)
    await housekeeping(server)
    assert (await bobs.publish_prekeys(PreKeyUpload(one_time_prekeys=upload.one_time_prekeys))).one_time == 0


async def test_one_request_id_is_one_question(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(5))
    await server.join("carol")
    _, alices = await server.join("alice")
    await alices.claim(bob.user.user_id, request_id(1))
    for user_id, device_ids in (
        (UserId("carol"), None),
        (bob.user.user_id, []),
        (bob.user.user_id, [bob.address.device_id]),
    ):
        with pytest.raises(KeyServerRefusedError) as refused:
            await alices.claim(user_id, request_id(1), device_ids)
        assert refused.value.code == "request_id_reused"


async def test_two_claimers_with_the_same_request_id_get_different_keys(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(5))
    _, alices = await server.join("alice")
    _, carols = await server.join("carol")
    claims = [await client.claim(bob.user.user_id, request_id(1)) for client in (alices, carols)]
    assert one_time(claims[0]) != one_time(claims[1])


async def test_only_the_named_devices_are_claimed(server: World) -> None:
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    for device, client in ((bob, bobs), (laptop, laptops)):
        await client.publish_prekeys(device.upload(1))
    _, alices = await server.join("alice")
    (bundle,) = (await alices.claim(bob.user.user_id, request_id(1), [laptop.address.device_id])).bundles
    assert bundle.address == laptop.address
    assert (await bobs.prekey_counts()).one_time == 1
    assert len((await alices.claim(bob.user.user_id, request_id(2))).bundles) == 2


async def test_a_device_without_usable_prekeys_has_no_bundle_and_loses_none(server: World) -> None:
    bob, bobs = await server.join("bob")
    _, alices = await server.join("alice")
    only_kem = PreKeyUpload(None, bob.one_time_prekeys(1), bob.kem_prekey())
    await bobs.publish_prekeys(only_kem)
    assert (await alices.claim(bob.user.user_id, request_id(1))).bundles == ()
    assert (await bobs.prekey_counts()).one_time == 1


async def test_expired_prekeys_are_not_handed_out(server: World) -> None:
    bob, bobs = await server.join("bob")
    soon = server.clock() + HOUR_MS
    last_resort = bob.kem_prekey()
    await bobs.publish_prekeys(
        PreKeyUpload(bob.signed_prekey(), (), last_resort, (bob.kem_prekey(KemPreKeyKind.ONE_TIME, expires_at=soon),))
    )
    _, alices = await server.join("alice")
    server.clock.pass_ms(HOUR_MS)
    (bundle,) = (await alices.claim(bob.user.user_id, request_id(1))).bundles
    assert bundle.kem_prekey == last_resort
    assert (await bobs.prekey_counts()).one_time_kem == 0
    await bobs.publish_prekeys(PreKeyUpload(bob.signed_prekey(server.clock() + HOUR_MS)))
    server.clock.pass_ms(HOUR_MS)
    assert (await alices.claim(bob.user.user_id, request_id(2))).bundles == ()


async def test_claims_are_limited_for_each_pair_each_claimer_and_each_target(tmp_path: Path) -> None:
    limits = {
        "claim_pair_burst": 2,
        "claim_pair_seconds": 60,
        "claim_claimer_burst": 3,
        "claim_claimer_seconds": 60,
        "claim_target_burst": 4,
        "claim_target_seconds": 60,
    }
    async with world(tmp_path, **limits) as server:
        bob, bobs = await server.join("bob")
        await bobs.publish_prekeys(bob.upload(20))
        _, alices = await server.join("alice")
        for number in range(2):
            await alices.claim(bob.user.user_id, request_id(number))
        with pytest.raises(RateLimitedError) as refused:
            await alices.claim(bob.user.user_id, request_id(2))
        assert refused.value.retry_after == 60
        await alices.claim(bob.user.user_id, request_id(1))  # a repeated one is free
        await alices.claim(UserId("nobody"), request_id(3))
        with pytest.raises(RateLimitedError):
            await alices.claim(UserId("nobody2"), request_id(4))
        _, carols = await server.join("carol")
        for number in range(2):
            await carols.claim(bob.user.user_id, request_id(number))
        _, daves = await server.join("dave")
        with pytest.raises(RateLimitedError):
            await daves.claim(bob.user.user_id, request_id(1))
        assert (await bobs.prekey_counts()).one_time == 16
        server.clock.pass_ms(60_000)
        assert len((await daves.claim(bob.user.user_id, request_id(1))).bundles) == 1


async def test_concurrent_claims_hand_out_each_key_once(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(10, 10)
    await bobs.publish_prekeys(upload)
    _, alices = await server.join("alice")
    claims = await asyncio.gather(*(alices.claim(bob.user.user_id, request_id(number)) for number in range(20)))
    got = [one_time(claim) for claim in claims if one_time(claim) is not None]
    assert len(got) == 10
    assert set(got) == set(upload.one_time_prekeys)
    kem = [claim.bundles[0].kem_prekey for claim in claims]
    assert sorted(each.prekey_id for each in kem if each.kind is KemPreKeyKind.ONE_TIME) == sorted(
        each.prekey_id for each in upload.one_time_kem_prekeys
    )


async def test_the_same_request_many_times_at_once_is_one_claim(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(10))
    _, alices = await server.join("alice")
    claims = await asyncio.gather(*(alices.claim(bob.user.user_id, request_id(1)) for _ in range(10)))
    assert len(set(claims)) == 1
    assert (await bobs.prekey_counts()).one_time == 9


async def test_prekey_id_zero_is_an_id_like_any_other(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(0)
    bob.next_id = 0
    kem = bob.kem_prekey(KemPreKeyKind.ONE_TIME)
    await bobs.publish_prekeys(replace(upload, one_time_kem_prekeys=(kem,)))
    _, alices = await server.join("alice")
    claims = [await alices.claim(bob.user.user_id, request_id(1)) for _ in range(2)]
    assert claims[0] == claims[1]
    assert claims[0].bundles[0].kem_prekey == kem
    carol, carols = await server.join("carol")
    carol.next_id = 0
    (one_time_prekey,) = carol.one_time_prekeys(1)
    await carols.publish_prekeys(replace(carol.upload(0), one_time_prekeys=(one_time_prekey,)))
    assert one_time(await alices.claim(carol.user.user_id, request_id(2))) == one_time_prekey
    dave, daves = await server.join("dave")
    dave.next_id = 0
    counts = await daves.publish_prekeys(dave.upload(0))
    assert counts.signed_prekey_id == 0
    assert len((await alices.claim(dave.user.user_id, request_id(3))).bundles) == 1
