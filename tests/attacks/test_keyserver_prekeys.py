"""Attacks on prekeys: reused ids, foreign signatures, swapped kinds, spent keys offered again."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from e2ee.limits import DAY_MS
from e2ee.primitives.kdf import sha256
from e2ee.wire.codec import to_base64url
from e2ee.wire.identifiers import PreKeyId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, SignedPreKey
from keyserver.client import KeyServerRefusedError, PreKeyConflictError, PreKeyCounts, PreKeyUpload
from keyserver.housekeeping import clean
from keyserver.repository.prekeys import claim_one_time_prekey
from keyserver.tables import PreKeyKind
from tests.databases import on_postgresql  # noqa: F401 - a fixture
from tests.keyserver_world import World, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


NOTHING = PreKeyCounts(0, 0, None, None)


async def test_a_spent_prekey_id_with_other_bytes_is_refused_for_ever_and_the_stored_hash_is_told(
    server: World,
) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(1)
    (spent,) = upload.one_time_prekeys
    await bobs.publish_prekeys(upload)
    await bobs.claim(bob.user.user_id, bytes(16))
    server.clock.pass_ms(40 * DAY_MS)
    await server.app.services.database.write(lambda connection: clean(connection, server.clock()))
    reused = OneTimePreKey(spent.prekey_id, bob.one_time_prekeys(1)[0].public_key)
    with pytest.raises(PreKeyConflictError) as refused:
        await bobs.publish_prekeys(PreKeyUpload(one_time_prekeys=(reused,)))
    assert refused.value.stored_hash == sha256(spent.encode())
    assert (await bobs.prekey_counts()).one_time == 0


async def test_a_spent_prekey_uploaded_again_is_not_offered_again(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(1, 1)
    await bobs.publish_prekeys(upload)
    (first,) = (await bobs.claim(bob.user.user_id, bytes(16))).bundles
    assert (await bobs.publish_prekeys(upload)).one_time == 0
    (second,) = (await bobs.claim(bob.user.user_id, bytes([1]) * 16)).bundles
    assert second.one_time_prekey is None
    assert second.kem_prekey == upload.last_resort != first.kem_prekey


async def test_all_kinds_share_one_id_space(server: World) -> None:
    bob, bobs = await server.join("bob")
    upload = bob.upload(1)
    counts = await bobs.publish_prekeys(upload)
    assert upload.signed_prekey is not None
    taken = upload.signed_prekey.prekey_id
    with pytest.raises(PreKeyConflictError):
        await bobs.publish_prekeys(
            PreKeyUpload(one_time_prekeys=(OneTimePreKey(taken, bob.one_time_prekeys(1)[0].public_key),))
        )
    assert await bobs.prekey_counts() == counts


async def test_one_id_twice_in_an_upload_is_refused(server: World) -> None:
    bob, bobs = await server.join("bob")
    one, other = bob.one_time_prekeys(2)
    with pytest.raises(PreKeyConflictError):
        await bobs.publish_prekeys(PreKeyUpload(one_time_prekeys=(one, OneTimePreKey(one.prekey_id, other.public_key))))
    assert await bobs.prekey_counts() == NOTHING
    assert (await bobs.publish_prekeys(PreKeyUpload(one_time_prekeys=(one, one)))).one_time == 1


async def test_prekeys_of_another_device_are_refused(server: World) -> None:
    _, mallorys = await server.join("mallory")
    bob, _ = await server.join("bob")
    for upload in (PreKeyUpload(bob.signed_prekey()), PreKeyUpload(last_resort=bob.kem_prekey())):
        with pytest.raises(KeyServerRefusedError) as refused:
            await mallorys.publish_prekeys(upload)
        assert refused.value.code == "invalid_signature"
    assert await mallorys.prekey_counts() == NOTHING


async def test_a_prekey_signed_for_another_address_by_the_same_key_is_refused(server: World) -> None:
    bob, bobs = await server.join("bob")
    elsewhere = bob.user.device()
    elsewhere.signing = bob.signing
    with pytest.raises(KeyServerRefusedError) as refused:
        await bobs.publish_prekeys(PreKeyUpload(elsewhere.signed_prekey()))
    assert refused.value.code == "invalid_signature"


def _changed(prekey: SignedPreKey | KemPreKey) -> list[SignedPreKey | KemPreKey]:
    flipped = bytes([prekey.signature[0] ^ 1]) + prekey.signature[1:]
    return [
        replace(prekey, expires_at=prekey.expires_at + 1),
        replace(prekey, prekey_id=PreKeyId(prekey.prekey_id ^ 1)),
        replace(prekey, signature=flipped),
        replace(prekey, signature=bytes(64)),
    ]


async def test_a_changed_signed_prekey_is_refused(server: World) -> None:
    bob, bobs = await server.join("bob")
    for changed in (*_changed(bob.signed_prekey()), *_changed(bob.kem_prekey())):
        upload = PreKeyUpload(changed) if isinstance(changed, SignedPreKey) else PreKeyUpload(last_resort=changed)
        with pytest.raises(KeyServerRefusedError) as refused:
            await bobs.publish_prekeys(upload)
        assert refused.value.code == "invalid_signature"
    assert await bobs.prekey_counts() == NOTHING


async def test_a_one_time_kem_prekey_is_not_taken_for_the_last_resort_nor_the_other_way(server: World) -> None:
    bob, bobs = await server.join("bob")
    one_time, last_resort = bob.kem_prekey(KemPreKeyKind.ONE_TIME), bob.kem_prekey()
    for upload, code in (
        (PreKeyUpload(last_resort=one_time), "malformed_message"),
        (PreKeyUpload(one_time_kem_prekeys=(last_resort,)), "malformed_message"),
        (PreKeyUpload(last_resort=replace(one_time, kind=KemPreKeyKind.LAST_RESORT)), "invalid_signature"),
        (PreKeyUpload(one_time_kem_prekeys=(replace(last_resort, kind=KemPreKeyKind.ONE_TIME),)), "invalid_signature"),
    ):
        with pytest.raises(KeyServerRefusedError) as refused:
            await bobs.publish_prekeys(upload)
        assert refused.value.code == code


async def test_one_bad_prekey_among_good_ones_stores_nothing(server: World) -> None:
    bob, bobs = await server.join("bob")
    good = bob.upload(3, 2)
    bad = replace(good.one_time_kem_prekeys[1], signature=bytes(64))
    with pytest.raises(KeyServerRefusedError):
        await bobs.publish_prekeys(replace(good, one_time_kem_prekeys=(good.one_time_kem_prekeys[0], bad)))
    assert await bobs.prekey_counts() == NOTHING


async def test_trailing_bytes_and_non_canonical_keys_are_refused(server: World) -> None:
    bob, bobs = await server.join("bob")
    token = await bobs.device_token()
    (prekey,) = bob.one_time_prekeys(1)
    high_bit = prekey.encode()[:-1] + bytes([prekey.encode()[-1] | 0x80])
    for body, code in ((prekey.encode() + b"\0", "malformed_message"), (high_bit, "invalid_public_key")):
        response = await server.post("/v1/prekeys", {"one_time_prekeys": [to_base64url(body)]}, token, "PUT")
        assert (response.status_code, response.json()["code"]) == (422, code)
    assert await bobs.prekey_counts() == NOTHING


async def test_a_batch_above_the_limit_is_refused(server: World) -> None:
    bob, bobs = await server.join("bob")
    for upload in (
        PreKeyUpload(one_time_prekeys=bob.one_time_prekeys(101)),
        PreKeyUpload(one_time_kem_prekeys=tuple(bob.kem_prekey(KemPreKeyKind.ONE_TIME) for _ in range(101))),
    ):
        with pytest.raises(KeyServerRefusedError) as refused:
            await bobs.publish_prekeys(upload)
        assert refused.value.code == "invalid_request"
    assert await bobs.prekey_counts() == NOTHING


async def test_draining_a_users_one_time_prekeys_is_slowed_and_leaves_the_user_reachable(tmp_path: Path) -> None:
    async with world(tmp_path, claim_pair_burst=5, claim_pair_seconds=60) as server:
        bob, bobs = await server.join("bob")
        await bobs.publish_prekeys(bob.upload(50))
        _, mallorys = await server.join("mallory")
        refusals = 0
        for number in range(50):
            try:
                await mallorys.claim(bob.user.user_id, number.to_bytes(16, "big"))
            except KeyServerRefusedError as refusal:
                assert refusal.code == "rate_limited"
                refusals += 1
        assert refusals == 45
        assert (await bobs.prekey_counts()).one_time == 45
        _, alices = await server.join("alice")
        assert len((await alices.claim(bob.user.user_id, bytes(16))).bundles) == 1


async def test_claims_at_the_same_moment_hand_out_each_one_time_prekey_once(server: World) -> None:
    """Four people ask at once, each several times and each request twice, for more keys than there are."""
    bob, bobs = await server.join("bob")
    upload = bob.upload(10, 5)
    await bobs.publish_prekeys(upload)
    claimers = [(await server.join(name))[1] for name in ("alice", "carol", "dave", "erin")]
    requests = [(claimers[number % 4], number.to_bytes(16, "big")) for number in range(16)] * 2
    claims = await asyncio.gather(*(claimer.claim(bob.user.user_id, request) for claimer, request in requests))
    assert claims[:16] == claims[16:], "the same request gets the same keys"
    bundles = [claim.bundles[0] for claim in claims[:16]]
    one_time = [each.one_time_prekey for each in bundles if each.one_time_prekey is not None]
    kem = [each.kem_prekey for each in bundles if each.kem_prekey != upload.last_resort]
    assert sorted(one_time, key=lambda each: each.prekey_id) == sorted(
        upload.one_time_prekeys, key=lambda each: each.prekey_id
    )
    assert sorted(kem, key=lambda each: each.prekey_id) == sorted(
        upload.one_time_kem_prekeys, key=lambda each: each.prekey_id
    )


@pytest.mark.usefixtures("on_postgresql")
async def test_claims_that_have_not_committed_yet_hold_different_keys(tmp_path: Path) -> None:
    """On a database with several writers, two transactions that pick at one moment must not pick the same."""
    both_have_picked = threading.Barrier(2, timeout=10)
    async with world(tmp_path) as server:
        bob, bobs = await server.join("bob")
        await bobs.publish_prekeys(bob.upload(2))

        def claim(request: bytes) -> Callable[[Connection], PreKeyId | None]:
            def work(connection: Connection) -> PreKeyId | None:
                got = claim_one_time_prekey(connection, bob.address, PreKeyKind.ONE_TIME, request, server.clock())
                both_have_picked.wait()
                return got

            return work

        database = server.app.services.database
        got = await asyncio.gather(*(database.write(claim(bytes([number]) * 16)) for number in range(2)))
        assert len(set(got) - {None}) == 2
        assert (await bobs.prekey_counts()).one_time == 0
