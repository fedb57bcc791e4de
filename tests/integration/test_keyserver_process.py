"""A real server process over real HTTP: races, crashes, and what the process loads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from e2ee.wire.prekey_bundle import OneTimePreKey
from keyserver.client import Claim, KeyServerUnavailableError
from tests.keyserver_process import ServerProcess, join, real_device
from tests.keyserver_world import TestDevice


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    await process.start()
    yield process
    await process.aclose()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=40)) as client:
        yield client


def one_time(claim: Claim) -> OneTimePreKey | None:
    (bundle,) = claim.bundles
    return bundle.one_time_prekey


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def bob_with_prekeys(
    process: ServerProcess, http: httpx.AsyncClient, number: int
) -> tuple[TestDevice, set[OneTimePreKey]]:
    bob = real_device("bob")
    bobs = process.client(bob, http)
    await join(bobs, bob)
    upload = bob.upload(number)
    await bobs.publish_prekeys(upload)
    return bob, set(upload.one_time_prekeys)


async def test_twenty_concurrent_claims_of_the_last_ten_one_time_prekeys_hand_out_each_exactly_once(
    process: ServerProcess, http: httpx.AsyncClient
) -> None:
    bob, published = await bob_with_prekeys(process, http, 10)
    claimers = [real_device(f"claimer{number}") for number in range(4)]
    clients = [process.client(device, http) for device in claimers]
    for client, device in zip(clients, claimers, strict=True):
        await join(client, device)
    requests = [(clients[number % 4], request_id(number)) for number in range(20)]
    claims = await asyncio.gather(*(client.claim(bob.user.user_id, request) for client, request in requests))
    got = [key for key in map(one_time, claims) if key is not None]
    assert len(got) == 10
    assert set(got) == published
    again = await asyncio.gather(*(client.claim(bob.user.user_id, request) for client, request in requests))
    assert again == claims


async def test_a_server_killed_amid_claims_hands_no_key_out_twice_and_repeats_give_the_same(
    process: ServerProcess, http: httpx.AsyncClient
) -> None:
    bob, published = await bob_with_prekeys(process, http, 40)
    alice = real_device("alice")
    alices = process.client(alice, http)
    await join(alices, alice)
    before: dict[int, Claim] = {}
    answered = asyncio.Event()

    async def claim(number: int) -> None:
        try:
            before[number] = await alices.claim(bob.user.user_id, request_id(number))
            answered.set()
        except KeyServerUnavailableError:
            pass

    running = [asyncio.create_task(claim(number)) for number in range(25)]
    await answered.wait()  # at least one was answered, the others are wherever they are
    await process.kill()
    await process.start()
    await asyncio.gather(*running)
    after = {number: await alices.claim(bob.user.user_id, request_id(number)) for number in range(25)}
    for number, claim_before in before.items():
        assert after[number] == claim_before
    got = [key for key in map(one_time, after.values()) if key is not None]
    assert len(set(got)) == len(got) == 25
    assert set(got) <= published
    assert (await process.client(bob, http).prekey_counts()).one_time == 15


async def test_the_whole_server_answers_in_one_process_and_ends_in_good_order(
    process: ServerProcess, http: httpx.AsyncClient
) -> None:
    assert (await http.get(f"{process.url}/readyz")).json() == {"status": "ok"}
    handshake = await http.get(f"{process.url}/socket.io/", params={"EIO": "4", "transport": "polling"})
    assert handshake.status_code == 200
    assert handshake.text.startswith('0{"sid"')
    assert "server" not in handshake.headers
    assert await process.stop() == 0


async def test_a_server_that_starts_again_knows_its_devices_by_their_signatures(
    process: ServerProcess, http: httpx.AsyncClient
) -> None:
    alice = real_device("alice")
    alices = process.client(alice, http)
    await join(alices, alice)
    await process.kill()
    await process.start()
    assert (await alices.publish_prekeys(alice.upload(3))).one_time == 3
