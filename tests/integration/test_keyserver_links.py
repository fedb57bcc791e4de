"""The places of a link at the key server: written once, in order, for ten minutes, for one user."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2ee.limits import LINK_LIFETIME_MS, MAX_LINK_MESSAGE, MINUTE_MS
from e2ee.wire.codec import to_base64url
from keyserver.housekeeping import clean
from keyserver.repository import links
from keyserver.tables import link_messages
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import World, host_token, world

LINK = "ab" * 16


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def put(server: World, slot: int, message: bytes, user: str = "alice", link: str = LINK) -> tuple[int, str]:
    body = {"message": to_base64url(message)}
    response = await server.post(f"/v1/links/{link}/{slot}", body, host_token(user, server.clock()), "PUT")
    return response.status_code, response.json().get("code", "")


async def get(server: World, slot: int, user: str = "alice", link: str = LINK) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {host_token(user, server.clock())}"}
    response = await server.http.get(f"/v1/links/{link}/{slot}", headers=headers)
    return response.status_code, response.json().get("message", response.json().get("code"))


async def test_four_messages_go_in_and_come_out(server: World) -> None:
    for slot in (1, 2, 3, 4):
        assert await put(server, slot, bytes((slot,))) == (200, "")
    for slot in (1, 2, 3, 4):
        assert await get(server, slot) == (200, to_base64url(bytes((slot,))))


async def test_a_place_is_empty_until_it_is_written_and_then_written_once(server: World) -> None:
    await put(server, 1, b"one")
    assert await get(server, 2) == (200, None)
    assert await put(server, 2, b"two") == (200, "")
    assert await put(server, 2, b"two") == (200, "")
    assert await put(server, 2, b"other") == (409, "link_slot_taken")
    assert await put(server, 1, b"other") == (409, "link_slot_taken")
    assert await get(server, 2) == (200, to_base64url(b"two"))


async def test_of_many_that_write_one_place_at_once_one_wins(server: World) -> None:
    await put(server, 1, b"one")
    outcomes = await asyncio.gather(*(put(server, 2, bytes((number,))) for number in range(8)))
    assert sorted(outcomes) == [(200, "")] + [(409, "link_slot_taken")] * 7


async def test_no_message_comes_before_the_one_it_follows(server: World) -> None:
    assert await put(server, 2, b"two") == (404, "link_not_found")
    await put(server, 1, b"one")
    assert await put(server, 3, b"three") == (409, "link_order")
    assert await put(server, 4, b"four") == (409, "link_order")


async def test_a_link_is_its_users_alone(server: World) -> None:
    await put(server, 1, b"one")
    assert await get(server, 1, user="bob") == (404, "link_not_found")
    assert await put(server, 2, b"two", user="bob") == (404, "link_not_found")
    assert await put(server, 1, b"bob's own", user="bob") == (200, "")
    assert await get(server, 1) == (200, to_base64url(b"one"))


async def test_a_link_lasts_ten_minutes_and_its_id_does_not_come_back(server: World) -> None:
    await put(server, 1, b"one")
    server.clock.pass_ms(LINK_LIFETIME_MS - 1)
    assert await put(server, 2, b"two") == (200, "")
    server.clock.pass_ms(1)
    assert await get(server, 1) == (404, "link_not_found")
    assert await put(server, 3, b"three") == (404, "link_not_found")
    assert await put(server, 1, b"one") == (404, "link_not_found")


async def test_housekeeping_deletes_what_is_over_and_nothing_else(server: World) -> None:
    await put(server, 1, b"one")
    server.clock.pass_ms(MINUTE_MS)
    await put(server, 1, b"later", link="cd" * 16)
    server.clock.pass_ms(LINK_LIFETIME_MS - MINUTE_MS + 1)
    database = server.app.services.database
    await database.write(lambda connection: clean(connection, server.clock()))
    rows = await database.read(lambda connection: connection.execute(link_messages.select()).all())
    assert [row.body for row in rows] == [b"later"]
    assert await database.write(lambda connection: links.forget(connection, server.clock())) == 0


async def test_new_links_of_one_user_are_limited_and_others_are_not_held_up(server: World) -> None:
    outcomes = [await put(server, 1, b"one", link=f"{number:032x}") for number in range(12)]
    assert outcomes[:10] == [(200, "")] * 10
    assert outcomes[10:] == [(429, "rate_limited")] * 2
    assert await put(server, 1, b"one", user="bob") == (200, "")
    assert await put(server, 2, b"two", link=f"{0:032x}") == (200, "")


@pytest.mark.parametrize(
    ("link", "slot"), [(LINK, 0), (LINK, 5), ("AB" * 16, 1), ("ab" * 15, 1), ("ab" * 17, 1), ("zz" * 16, 1)]
)
async def test_a_place_that_does_not_exist_is_refused(server: World, link: str, slot: int) -> None:
    assert await put(server, slot, b"one", link=link) == (422, "invalid_request")


async def test_a_message_has_at_most_8_kib(server: World) -> None:
    assert await put(server, 1, bytes(MAX_LINK_MESSAGE)) == (200, "")
    assert (await put(server, 2, bytes(MAX_LINK_MESSAGE + 1)))[0] == 422
    assert (await put(server, 2, b""))[0] == 422


async def test_a_link_needs_the_host_applications_token(server: World) -> None:
    _, client = await server.join("alice")
    await put(server, 1, b"one")
    device_token = await client.device_token()
    for token in (None, device_token, "nonsense"):
        response = await server.post(f"/v1/links/{LINK}/2", {"message": "AA"}, token, "PUT")
        assert response.status_code == 401


async def test_a_user_sees_which_of_the_own_devices_are_listed_and_which_wait(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = phone.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    assert [(each.device_id, each.is_listed) for each in await client.own_devices()] == [
        (phone.address.device_id, True),
        (laptop.address.device_id, False),
    ]
    await client.publish_device_list(phone.user.next_list(laptop))
    assert [each.device_id for each in await server.client(laptop).own_devices()] == [laptop.address.device_id]
    bob, _ = await server.join("bob")
    assert [each.device_id for each in await server.client(bob).own_devices()] == [bob.address.device_id]
