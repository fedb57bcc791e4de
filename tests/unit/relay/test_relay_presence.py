"""Presence at the relay: leases that end, watchers that are told. The clock stands still unless a test moves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.database import Database
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually
from tests.databases import statements
from transport_adapters.base import PresenceState
from transport_adapters.frames import Presence, PresenceReport, Typing, Watch
from transport_adapters.server.bus import Bus, LocalBus, PresenceChanged, PresenceNews
from transport_adapters.server.relay import Relay
from transport_adapters.server.settings import RelaySettings

ONLINE, AWAY, OFFLINE = PresenceState.ONLINE, PresenceState.AWAY, PresenceState.OFFLINE
BOB, CAROL = UserId("bob"), UserId("carol")
QUICK = replace(PATIENT, presence_grace=0.0)
GENEROUS = replace(PATIENT, presence_grace=3600.0)


@pytest.fixture
def settings() -> RelaySettings:
    return QUICK


@asynccontextmanager
async def second_node(world: RelayWorld, bus: Bus | None = None) -> AsyncIterator[RelayWorld]:
    """Another relay, with another pool, on the same database."""
    database = Database(await world.database.read(lambda on: on.engine.url))
    await database.start()
    relay = Relay(
        database,
        world.relay.tables,
        world.lists,
        world.tokens,
        world.contacts,
        now=world.clock,
        settings=world.relay.settings,
        bus=bus or LocalBus(),
    )
    try:
        yield replace(world, database=database, relay=relay)
    finally:
        await relay.close()
        await database.close()


def told(client: FrameClient) -> dict[UserId, PresenceState]:
    """What a watcher knows by now."""
    states: dict[UserId, PresenceState] = {}
    for report in reports(client):
        states |= report.states
    return states


def reports(client: FrameClient) -> list[PresenceReport]:
    return [frame for frame in client.frames if isinstance(frame, PresenceReport)]


async def present(
    world: RelayWorld, owner: DeviceAddress, state: PresenceState = ONLINE, lease: int | None = None, instance: int = 1
) -> FrameClient:
    """Connect a device and announce it."""
    client = FrameClient(world, owner, instance=instance)
    await client.online()
    news: list[PresenceNews] = []
    unsubscribe = world.relay.bus.subscribe_presence(news.append)
    client.say(Presence(state, lease))
    await eventually(lambda: PresenceChanged(owner.user_id) in news)
    unsubscribe()
    return client


async def watcher(world: RelayWorld, owner: DeviceAddress, *users: UserId) -> FrameClient:
    """Connect a device that watches users, and wait until it was told of all."""
    client = FrameClient(world, owner)
    await client.online()
    client.say(Watch(users))
    await eventually(lambda: told(client).keys() >= set(users))
    return client


async def rows(world: RelayWorld) -> list[Any]:
    return await world.database.read(lambda on: list(on.execute(select(world.relay.tables.presence)).all()))


def visible(world: RelayWorld, *watched: str) -> None:
    world.contacts.visible |= {("alice", user) for user in watched}


async def test_a_silent_device_is_offline_to_its_watchers_at_most_30_seconds_later(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    silent = await present(world, bob)
    watching = await watcher(world, alice, BOB)
    assert told(watching) == {BOB: ONLINE}
    world.clock.advance(15)
    silent.connection.alive()  # its last sign of life
    await world.relay.presence.renew()
    world.clock.advance(28)
    assert await world.relay.presence.sweep() == world.clock() + 1_000
    world.relay.presence.reread()
    await watching.answered(bob)
    assert told(watching) == {BOB: ONLINE}
    world.clock.advance(2)
    await world.relay.presence.renew()  # the connection is still there, and says nothing
    await world.relay.presence.sweep()
    await eventually(lambda: told(watching) == {BOB: OFFLINE})
    assert await rows(world) == []


async def test_a_lease_that_has_run_out_counts_no_more_even_before_it_is_swept(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    await present(world, bob)
    world.clock.advance(29)
    assert told(await watcher(world, alice, BOB)) == {BOB: OFFLINE}
    assert len(await rows(world)) == 1


async def test_a_device_that_comes_back_to_life_on_its_old_connection_is_online_again(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    frozen = await present(world, bob)
    watching = await watcher(world, alice, BOB)
    world.clock.advance(31)
    await world.relay.presence.sweep()
    await eventually(lambda: told(watching) == {BOB: OFFLINE})
    frozen.connection.alive()
    await world.relay.presence.renew()
    await eventually(lambda: told(watching) == {BOB: ONLINE})


async def test_a_closed_connection_is_offline_at_once(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    leaving = await present(world, bob)
    watching = await watcher(world, alice, BOB)
    leaving.connection.disconnected()
    await eventually(lambda: told(watching) == {BOB: OFFLINE})
    assert await rows(world) == []


@pytest.mark.parametrize("settings", [GENEROUS])
async def test_a_device_that_is_back_at_once_was_never_shown_as_gone(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    watching = await watcher(world, alice, BOB)
    first = await present(world, bob)
    await eventually(lambda: told(watching) == {BOB: ONLINE})
    first.connection.disconnected()
    await eventually(lambda: _is_empty(world))
    await present(world, bob, instance=2)
    world.relay.presence.reread()
    await watching.answered(bob)
    assert [report.states for report in reports(watching)] == [{BOB: OFFLINE}, {BOB: ONLINE}]


@pytest.mark.parametrize("settings", [GENEROUS])
async def test_who_asks_during_the_time_to_come_back_is_told_the_truth(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    leaving = await present(world, bob)
    leaving.connection.disconnected()
    await eventually(lambda: _is_empty(world))
    assert told(await watcher(world, alice, BOB)) == {BOB: OFFLINE}


async def test_an_old_connections_late_end_does_not_turn_a_reconnected_device_offline(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    async with second_node(world, world.relay.bus) as other:
        old = await present(world, bob)
        await present(other, bob, AWAY, instance=2)
        watching = await watcher(world, alice, BOB)
        assert told(watching) == {BOB: AWAY}
        old.connection.alive()
        world.clock.advance(1)
        await world.relay.presence.renew()  # the old one is late: its word counts no more
        old.connection.disconnected()
        await eventually(lambda: not world.relay.is_live(bob))
        await watching.answered(bob)
        world.relay.presence.reread()
        await watching.answered(bob)
        assert told(watching) == {BOB: AWAY}
        assert len(await rows(world)) == 1


async def test_an_old_connection_does_not_bring_back_a_device_that_left_from_another_node(
    world: RelayWorld, bob: DeviceAddress
) -> None:
    async with second_node(world) as other:
        zombie = await present(world, bob)
        newer = await present(other, bob, instance=2)
        newer.connection.disconnected()
        await eventually(lambda: _is_empty(world))
        world.clock.advance(1)
        zombie.connection.alive()
        await world.relay.presence.renew()
        await zombie.answered(bob)
        await world.relay.presence.renew()
        await zombie.answered(bob)
        assert await rows(world) == []


async def test_watchers_on_another_node_are_told(world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress) -> None:
    visible(world, "bob")
    async with second_node(world, world.relay.bus) as other:
        watching = await watcher(other, alice, BOB)
        client = await present(world, bob)
        await eventually(lambda: told(watching) == {BOB: ONLINE})
        client.connection.disconnected()
        await eventually(lambda: told(watching) == {BOB: OFFLINE})


async def test_lost_news_cost_time_and_no_change(world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress) -> None:
    visible(world, "bob")
    async with second_node(world) as other:  # with a bus of its own, so it hears nothing
        watching = await watcher(other, alice, BOB)
        await present(world, bob)
        other.relay.presence.reread()
        await eventually(lambda: told(watching) == {BOB: ONLINE})


async def test_devices_of_a_node_that_died_are_offline_at_most_30_seconds_later(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    async with second_node(world) as survivor:
        await present(world, bob)  # its node renews nothing from now on
        watching = await watcher(survivor, alice, BOB)
        assert told(watching) == {BOB: ONLINE}
        world.clock.advance(30)
        await survivor.relay.presence.sweep()
        await eventually(lambda: told(watching) == {BOB: OFFLINE})


async def test_the_most_present_device_of_a_user_counts(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    phone, laptop = await present(world, bob, AWAY), await present(world, await world.device("bob", 2))
    watching = await watcher(world, alice, BOB)
    assert told(watching) == {BOB: ONLINE}
    laptop.say(Presence(AWAY))
    await eventually(lambda: told(watching) == {BOB: AWAY})
    laptop.say(Presence(OFFLINE))
    phone.say(Presence(ONLINE))
    await eventually(lambda: told(watching) == {BOB: ONLINE})
    phone.say(Presence(OFFLINE))
    await eventually(lambda: told(watching) == {BOB: OFFLINE})


async def test_a_device_that_never_announced_itself_is_not_seen_and_nothing_of_it_is_written(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    quiet = FrameClient(world, bob)
    await quiet.online()
    watching = await watcher(world, alice, BOB)
    quiet.connection.alive()
    await world.relay.presence.renew()
    assert told(watching) == {BOB: OFFLINE}
    assert await rows(world) == []


async def test_a_device_that_asks_for_a_shorter_lease_has_one(world: RelayWorld, bob: DeviceAddress) -> None:
    await present(world, bob, lease=10)
    world.clock.advance(10)
    await world.relay.presence.sweep()
    assert await rows(world) == []


async def test_all_leases_of_a_node_are_renewed_in_one_statement(world: RelayWorld) -> None:
    clients = [await present(world, await world.device(f"user-{n}")) for n in range(20)]
    world.clock.advance(5)
    for client in clients[1:]:
        client.connection.alive()
    with statements() as seen:
        await world.relay.presence.renew()
    assert len([statement for statement in seen if "e2ee_presence" in statement]) == 1
    expiries = sorted(row.expires_at - world.clock() for row in await rows(world))
    assert expiries == [24_000, *[29_000] * 19]


async def test_a_users_state_is_told_when_it_changes_and_not_when_it_is_read_again(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    client = await present(world, bob)
    watching = await watcher(world, alice, BOB, CAROL)
    client.say(Presence(ONLINE))
    world.relay.presence.reread()
    await client.answered(alice)
    await watching.answered(bob)
    assert [report.states for report in reports(watching)] == [{BOB: ONLINE, CAROL: OFFLINE}]


async def test_watching_others_ends_what_was_watched_before(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob", "carol")
    carol = await world.device("carol")
    watching = await watcher(world, alice, BOB)
    watching.say(Watch((CAROL,)))
    await eventually(lambda: CAROL in told(watching))
    await present(world, bob)
    await present(world, carol)
    await eventually(lambda: told(watching)[CAROL] is ONLINE)
    assert told(watching)[BOB] is OFFLINE


async def test_an_applications_quick_changes_are_not_written_one_by_one(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    world.relay.presence.around = world.relay.presence.around._replace(settings=GENEROUS)
    client = await present(world, bob)
    watching = await watcher(world, alice, BOB)
    for _ in range(50):
        client.say(Presence(AWAY))
        client.say(Presence(ONLINE))
    client.say(Presence(AWAY))
    await client.answered(alice)
    world.relay.presence.reread()
    await watching.answered(bob)
    assert told(watching) == {BOB: ONLINE}


async def test_a_broken_rule_of_the_host_shows_nobody_and_ends_nothing(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    visible(world, "bob")
    may_see = world.contacts.may_see

    async def broken(_watcher: UserId, _watched: UserId) -> bool:
        raise RuntimeError("the host's database is down")

    monkeypatch.setattr(world.contacts, "may_see", broken)
    await present(world, bob)
    watching = FrameClient(world, alice)
    await watching.online()
    watching.say(Watch((BOB,)))
    await watching.answered(bob)
    assert told(watching) == {}
    monkeypatch.setattr(world.contacts, "may_see", may_see)
    world.relay.presence.reread()
    await eventually(lambda: told(watching) == {BOB: ONLINE})


async def test_typing_reaches_who_watches_and_may_see(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    async with second_node(world, world.relay.bus) as other:
        watching = await watcher(other, alice, BOB)
        writing = await present(world, bob)
        writing.say(Typing(alice.user_id, active=True))
        assert await watching.next(Typing) == Typing(BOB, active=True)
        writing.say(Typing(alice.user_id, active=False))
        assert await watching.next(Typing) == Typing(BOB, active=False)


async def test_the_relay_renews_and_sweeps_by_itself(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    visible(world, "bob")
    world.relay.presence.around = world.relay.presence.around._replace(settings=replace(QUICK, presence_interval=0.01))
    await world.relay.start()
    client = await present(world, bob)
    watching = await watcher(world, alice, BOB)
    before = world.clock()
    world.clock.advance(20)
    client.connection.alive()
    await eventually(lambda: _expires_after(world, before + 40_000))
    assert told(watching) == {BOB: ONLINE}
    world.clock.advance(30)
    await eventually(lambda: told(watching) == {BOB: OFFLINE})


async def _is_empty(world: RelayWorld) -> bool:
    return await rows(world) == []


async def _expires_after(world: RelayWorld, moment: int) -> bool:
    return all(row.expires_at > moment for row in await rows(world))
