"""The same attacks as in test_link_hostile_server.py, by a whole server against two real clients.

Whatever it puts into the place of a message, the new device's store stays empty and the list stays as it was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from e2ee.errors import InvalidSignatureError, LinkExpiredError, LinkMismatchError
from e2ee.ports import Table
from e2ee.short_authentication import Signs
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.link import LinkSlot, parse_link_code
from tests.client_world import Actor, ClientWorld, Tamper, client_world, within
from tests.keyserver_world import Clock
from tests.linking_world import Screens, approve, join
from tests.store_files import KEY


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def attempt(
    world: ClientWorld, alice: Actor, path: Path, tampered: dict[LinkSlot, Tamper]
) -> tuple[BaseException | None, BaseException | None]:
    """Link over a server that changes what it gives out of some places; return how each end failed."""
    screens = Screens()
    joining = asyncio.create_task(join(world, "alice", screens, store=path, key=KEY))
    link_id = parse_link_code(await within(screens.code))
    for slot, tamper in tampered.items():
        world.faults.tamper[f"/v1/links/{link_id}/{slot.value}"] = tamper
    approving = asyncio.create_task(approve(alice, screens))
    await asyncio.wait([joining, approving], return_when=asyncio.FIRST_EXCEPTION, timeout=20)
    for task in (joining, approving):
        task.cancel()
    await asyncio.wait([joining, approving])
    ends = [None if task.cancelled() else task.exception() for task in (joining, approving)]
    return ends[0], ends[1]


def assert_nothing_was_taken_over(alice: Actor, path: Path) -> None:
    with closing(SqliteStore.open(path, key=KEY)) as store, store.read() as tx:
        assert all(tx.count(table) == 0 for table in Table)
    assert alice.client.messenger.own_device_list().content.seq == 1


def flipped(at: int) -> Tamper:
    def tamper(fields: dict[str, Any]) -> None:
        if fields["message"] is not None:
            message = bytearray(from_base64url(fields["message"]))
            message[at] ^= 1
            fields["message"] = to_base64url(bytes(message))

    return tamper


@pytest.mark.parametrize("at", [25, -70, -1])
async def test_a_bundle_changed_by_the_server_is_refused_by_the_new_device(
    world: ClientWorld, tmp_path: Path, at: int
) -> None:
    alice, path = await world.open("alice"), tmp_path / "new.db"
    new, _ = await attempt(world, alice, path, {LinkSlot.BUNDLE: flipped(at)})
    assert isinstance(new, InvalidSignatureError)
    assert_nothing_was_taken_over(alice, path)


async def test_the_bundle_of_an_earlier_link_is_refused_in_a_later_one(world: ClientWorld, tmp_path: Path) -> None:
    alice, kept, path = await world.open("alice"), list[str](), tmp_path / "new.db"

    def keep(fields: dict[str, Any]) -> None:
        if fields["message"] is not None:
            kept.append(fields["message"])
            fields["message"] = to_base64url(b"held back")

    await attempt(world, alice, tmp_path / "first.db", {LinkSlot.BUNDLE: keep})
    assert kept

    def replay(fields: dict[str, Any]) -> None:
        fields["message"] = kept[0]

    new, _ = await attempt(world, alice, path, {LinkSlot.BUNDLE: replay})
    assert isinstance(new, LinkMismatchError)
    assert_nothing_was_taken_over(alice, path)


async def test_keys_swapped_by_the_server_are_refused_before_a_person_is_asked(
    world: ClientWorld, tmp_path: Path
) -> None:
    alice, path = await world.open("alice"), tmp_path / "new.db"
    _, existing = await attempt(world, alice, path, {LinkSlot.REVEAL: flipped(-1)})
    assert isinstance(existing, LinkMismatchError)
    assert_nothing_was_taken_over(alice, path)


async def test_an_answer_changed_by_the_server_shows_in_the_signs(world: ClientWorld, tmp_path: Path) -> None:
    alice, path, screens = await world.open("alice"), tmp_path / "new.db", Screens()
    shown: list[Signs] = []

    async def look(signs: Signs) -> bool:
        shown.append(signs)
        return False

    joining = asyncio.create_task(join(world, "alice", screens, store=path, key=KEY, confirm=look))
    link_id = parse_link_code(await within(screens.code))
    world.faults.tamper[f"/v1/links/{link_id}/{LinkSlot.ANSWER.value}"] = flipped(-1)
    approving = asyncio.create_task(approve(alice, screens, look))
    await asyncio.wait([joining, approving], timeout=20)
    assert len(shown) == 2
    assert shown[0].pictures != shown[1].pictures
    assert_nothing_was_taken_over(alice, path)


async def test_a_link_is_over_after_ten_minutes_at_the_server_too(tmp_path: Path) -> None:
    clock = Clock()
    async with client_world(tmp_path, now=clock) as world:
        alice, screens = await world.open("alice"), Screens()
        joining = asyncio.create_task(join(world, "alice", screens))
        await within(screens.code)
        clock.pass_ms(10 * 60 * 1000)
        with pytest.raises(LinkExpiredError):
            await within(joining)
        assert alice.client.messenger.own_device_list().content.seq == 1
