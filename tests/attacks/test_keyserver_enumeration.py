"""Attack: finding out who uses the service. Unknown users and users out of reach look the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from e2ee.wire.codec import to_base64url
from e2ee.wire.device_list import DeviceListHash
from e2ee.wire.identifiers import UserId
from keyserver.app import create_app
from keyserver.service.policy import ContactPolicy
from keyserver.tables import prekeys
from tests.databases import each_database, statements  # noqa: F401 - the first is a fixture
from tests.keyserver_world import Clock, World, running, settings

KNOWN, UNKNOWN = "bob", "nobody"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose host lets nobody contact bob, nor anybody whose name it does not know."""

    async def may_contact(_asker: UserId, other: UserId) -> bool:
        return other not in (KNOWN, UNKNOWN)

    clock = Clock()
    app = create_app(settings(tmp_path / "server.db"), may_contact=may_contact, now=clock)
    async with running(app, clock) as made:
        bob, bobs = await made.join(KNOWN)
        await bobs.publish_prekeys(bob.upload(5))
        yield made


async def test_a_claim_looks_and_runs_the_same_for_both(server: World) -> None:
    _, client = await server.join("mallory")
    token = await client.device_token()
    answers, ran = [], []
    for number, user_id in enumerate((KNOWN, UNKNOWN)):
        with statements() as seen:
            body = {"user_id": user_id, "request_id": f"{number:032x}"}
            answers.append(await server.post("/v1/claims", body, token))
        ran.append(seen)
    assert answers[0].status_code == 200
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers
    assert ran[0] == ran[1]


async def test_a_claim_of_an_unknown_user_runs_the_statements_of_a_reachable_one_without_devices(server: World) -> None:
    reachable = server.user("carol").device()
    await server.client(reachable).register_device(reachable.signing.public, reachable.identity.public)
    _, client = await server.join("mallory")
    token = await client.device_token()
    ran = []
    for number, user_id in enumerate(("carol", KNOWN, "neverseen")):
        with statements() as seen:
            body = {"user_id": user_id, "request_id": f"{number:032x}"}
            response = await server.post("/v1/claims", body, token)
        assert response.json() == {"device_list": None, "bundles": []}
        ran.append(seen)
    assert ran[0] == ran[1] == ran[2]


async def test_device_lists_look_and_run_the_same_for_both(server: World) -> None:
    _, client = await server.join("mallory")
    token = await client.device_token()
    answers, ran = [], []
    for user_id in (KNOWN, UNKNOWN):
        with statements() as seen:
            answers.append(await server.post(f"/v1/device-lists?user_id={user_id}", None, token, "GET"))
        ran.append(seen)
    assert answers[0].json() == {"device_lists": [], "newest_seq": 0}
    assert answers[0].content == answers[1].content
    assert ran[0] == ran[1]


async def test_bringing_a_list_is_refused_the_same_for_both(server: World) -> None:
    mallory, client = await server.join("mallory")
    token = await client.device_token()
    answers = []
    for user_id in (KNOWN, UNKNOWN):
        forged = mallory.user.sign_list(
            [mallory], user_id=UserId(user_id), seq=1, previous_hash=DeviceListHash(bytes(32))
        )
        body = {"device_list": to_base64url(forged.encode())}
        answers.append(await server.post("/v1/device-lists", body, token, "PUT"))
    assert answers[0].json()["code"] == "contact_refused"
    assert answers[0].content == answers[1].content


async def test_rate_limits_count_the_same_for_both(tmp_path: Path) -> None:
    async def may_contact(_asker: UserId, other: UserId) -> bool:
        return other not in (KNOWN, UNKNOWN)

    clock = Clock()
    limits = {"claim_pair_burst": 2, "claim_pair_seconds": 60}
    async with running(
        create_app(settings(tmp_path / "s.db", **limits), may_contact=may_contact, now=clock), clock
    ) as server:
        await server.join(KNOWN)
        _, client = await server.join("mallory")
        token = await client.device_token()
        seen = []
        for user_id in (KNOWN, UNKNOWN):
            bodies = [
                {"user_id": user_id, "request_id": f"{user_id == KNOWN:016x}{number:016x}"} for number in range(4)
            ]
            answers = [await server.post("/v1/claims", body, token) for body in bodies]
            seen.append([(answer.status_code, answer.content, answer.headers.get("retry-after")) for answer in answers])
        assert seen[0] == seen[1]
        assert [status for status, *_ in seen[0]] == [200, 200, 429, 429]


async def test_a_refused_claim_takes_no_prekey(server: World) -> None:
    _, client = await server.join("mallory")
    for number in range(5):
        await client.claim(UserId(KNOWN), bytes([number]) * 16)
    offered = select(func.count()).select_from(prekeys).where(prekeys.c.spent_at.is_(None))
    left = await server.app.services.database.read(lambda connection: connection.execute(offered).scalar_one())
    assert left == 5 + 2  # with the signed and the last-resort one


async def test_ones_own_devices_may_always_be_contacted() -> None:
    async def refuse(_asker: UserId, _other: UserId) -> bool:
        return False

    policy = ContactPolicy(refuse, refuse)
    assert await policy.may_contact(UserId("bob"), UserId("bob"))
    assert await policy.may_see(UserId("bob"), UserId("bob"))
    assert not await policy.may_contact(UserId("alice"), UserId("bob"))
    assert not await ContactPolicy().may_see(UserId("alice"), UserId("bob"))
