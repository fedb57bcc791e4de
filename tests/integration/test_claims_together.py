"""Claims of one moment share a transaction on PostgreSQL: each gets what it would get alone, at a part of the cost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from e2ee.wire.codec import from_base64url
from e2ee.wire.prekey_bundle import PreKeyBundle
from keyserver.service.policy import ContactPolicy
from tests.databases import on_postgresql, statements  # noqa: F401 - the first is a fixture
from tests.keyserver_world import ORIGIN, TestDevice, World, world

pytestmark = pytest.mark.usefixtures("on_postgresql")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, claim_pair_burst=3, claim_target_burst=40) as made:
        yield made


async def people(server: World, number: int) -> list[str]:
    """Tokens of claimers."""
    return [await (await server.join(f"claimer{each}"))[1].device_token() for each in range(number)]


async def bob_with(server: World, one_time: int, kem: int) -> TestDevice:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(one_time, kem))
    return bob


async def ask(server: World, token: str, number: int, user: str = "bob") -> httpx.Response:
    return await server.post("/v1/claims", {"user_id": user, "request_id": f"{number:032x}"}, token)


def bundles(response: httpx.Response) -> list[PreKeyBundle]:
    assert response.status_code == 200, response.text
    return [PreKeyBundle.decode(from_base64url(each)) for each in response.json()["bundles"]]


async def test_many_at_once_cost_few_statements_and_each_gets_keys_of_its_own(server: World) -> None:
    bob = await bob_with(server, 20, 10)
    tokens = await people(server, 16)
    await asyncio.gather(*(ask(server, token, 0, "warm") for token in tokens))  # each holds requests for its user now
    with statements() as seen:
        answers = await asyncio.gather(*(ask(server, token, 1) for token in tokens))
    assert len(seen) <= 6, (
        "for 16 claims: some groups of two statements, of which the first looks at the tokens as well"
    )
    got = [bundles(answer)[0] for answer in answers]
    assert len({each.one_time_prekey for each in got} - {None}) == 16
    kem = [each.kem_prekey.prekey_id for each in got]
    assert len({*kem}) == 10 + 1, "ten of their own, and for the others the last resort"
    assert all(each.address == bob.address for each in got)


MOVED = """UPDATE e2ee_logins SET (user_id, device_id) =
    (SELECT user_id, device_id FROM e2ee_devices WHERE user_id = 'claimer0') WHERE user_id = 'alice'"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("DELETE FROM e2ee_logins WHERE user_id = 'alice'", "token_invalid"),
        ("UPDATE e2ee_logins SET expires_at = 1 WHERE user_id = 'alice'", "token_expired"),
        (MOVED, "token_invalid"),
        ("UPDATE e2ee_devices SET token_version = token_version + 1 WHERE user_id = 'alice'", "token_invalid"),
        ("UPDATE e2ee_devices SET status = 2 WHERE user_id = 'alice'", "device_revoked"),
    ],
)
async def test_a_token_that_ended_counts_no_more_from_the_next_claim_on_whoever_claims_beside(
    server: World, how: str, code: str
) -> None:
    await bob_with(server, 20, 0)
    others = await people(server, 3)
    alice = await (await server.join("alice"))[1].device_token()
    first, second = await ask(server, alice, 1), await ask(server, alice, 2)
    assert (first.status_code, second.status_code) == (200, 200), "and the second without a look at the token before"
    await server.app.services.database.write(lambda on: on.execute(text(how)))
    with statements() as seen:
        hers, *theirs = await asyncio.gather(ask(server, alice, 3), *(ask(server, token, 1) for token in others))
    assert [answer.status_code for answer in theirs] == [200] * 3
    assert (hers.status_code, hers.json()["code"]) == (401, code)
    assert "e2ee_rate_limits" in seen[0], "the group was asked before anybody had looked"
    with statements() as seen:
        again = await ask(server, alice, 4)
    assert (again.status_code, again.content) == (401, hers.content)
    assert len(seen) == 1, "from now on the token is looked at before anything is done for it"
    mounted = FastAPI()
    mounted.include_router(server.app.services.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=mounted), base_url=ORIGIN) as framework:
        body = {"user_id": "bob", "request_id": f"{3:032x}"}
        long = await framework.post("/v1/claims", json=body, headers={"Authorization": f"Bearer {alice}"})
    assert (long.status_code, long.content) == (401, hers.content)
    recorded = text("SELECT count(*) FROM e2ee_claims WHERE user_id = 'alice'")
    assert await server.app.services.database.read(lambda on: on.execute(recorded).scalar_one()) == 2


async def test_what_is_wrong_with_a_token_is_said_before_what_is_wrong_with_a_claim(server: World) -> None:
    await bob_with(server, 20, 0)
    alice = await (await server.join("alice"))[1].device_token()

    async def all_wrong() -> list[int]:
        asked = (ask(server, alice, 3, "failing"), ask(server, alice, 1, "carol"), ask(server, alice, 2, "no user"))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    async def fails(_asker: str, asked: str) -> bool:
        if asked == "failing":
            raise ArithmeticError
        return True

    server.app.services.context.claims._policy = ContactPolicy(fails)
    assert [(await ask(server, alice, 1)).status_code for _ in range(2)] == [200, 200]
    assert await all_wrong() == [500, 409, 422]
    await server.app.services.log_out("alice")
    assert await all_wrong() == [401, 401, 401]


async def test_who_is_over_a_limit_is_refused_alone_and_takes_no_token(server: World) -> None:
    await bob_with(server, 50, 0)
    greedy, *others = await people(server, 6)
    asked = [ask(server, greedy, number) for number in range(5)]
    answers = await asyncio.gather(*asked, *(ask(server, token, 1) for token in others))
    assert sorted(answer.status_code for answer in answers[:5]) == [200, 200, 200, 429, 429]
    assert [answer.status_code for answer in answers[5:]] == [200] * 5
    # What the refused ones would have taken from bob's bucket is there for others: 40 less 8.
    more = await asyncio.gather(*(ask(server, others[number % 5], 10 + number) for number in range(10)))
    assert [answer.status_code for answer in more] == [200] * 10


async def test_repetitions_and_reused_ids_among_others_are_told_apart(server: World) -> None:
    await bob_with(server, 50, 0)
    await server.join("carol")
    alice, *others = await people(server, 4)
    first = await ask(server, alice, 1)
    again, twin, twin_again, reused, *rest = await asyncio.gather(
        ask(server, alice, 1),
        ask(server, alice, 2),
        ask(server, alice, 2),
        ask(server, alice, 1, "carol"),
        *(ask(server, token, 1) for token in others),
    )
    assert again.content == first.content
    assert twin.content == twin_again.content != first.content
    assert (reused.status_code, reused.json()["code"]) == (409, "request_id_reused")
    keys = {bundles(answer)[0].one_time_prekey for answer in (first, twin, *rest)}
    assert len(keys - {None}) == 5


async def test_devices_named_by_some_and_not_by_others_give_what_each_asked_for(server: World) -> None:
    bob = await bob_with(server, 10, 10)
    laptop = bob.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await server.client(bob).publish_device_list(bob.user.next_list(bob, laptop))
    await laptops.publish_prekeys(laptop.upload(10, 1))
    tokens = await people(server, 3)
    wanted = [None, [str(laptop.address.device_id)], []]
    answers = await asyncio.gather(
        *(
            server.post("/v1/claims", {"user_id": "bob", "request_id": f"{1:032x}", "device_ids": ids}, token)
            for token, ids in zip(tokens, wanted, strict=True)
        )
    )
    everybody, one, none = map(bundles, answers)
    assert [each.address for each in everybody] == sorted(
        (bob.address, laptop.address), key=lambda each: each.device_id.raw
    )
    assert [each.address for each in one] == [laptop.address]
    assert none == []
    assert len({answer.json()["device_list"] for answer in answers}) == 1
