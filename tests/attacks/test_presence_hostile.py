"""Attacks on presence: seeing who does not want to be seen, forging, flooding. Nobody else notices."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from e2ee.wire.identifiers import DeviceAddress, UserId
from tests.contract.relay_world import PATIENT, Contacts, FrameClient, RelayWorld, eventually, relay_world
from transport_adapters.base import PresenceState
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error, Presence, PresenceReport, Typing, Watch
from transport_adapters.server.settings import RelaySettings

ONLINE, AWAY, OFFLINE = PresenceState.ONLINE, PresenceState.AWAY, PresenceState.OFFLINE
ALICE, BOB = UserId("alice"), UserId("bob")


@pytest.fixture
def settings() -> RelaySettings:
    return replace(PATIENT, presence_grace=0.0)


@pytest.fixture
async def world(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path, settings) as world:
        yield world


async def online(world: RelayWorld, user: str) -> FrameClient:
    client = FrameClient(world, await world.device(user))
    await client.online()
    return client


async def seen(world: RelayWorld, user: str) -> FrameClient:
    """A device that announced itself."""
    client = await online(world, user)
    before = await count(world)
    client.say(Presence(ONLINE))

    async def is_written() -> bool:
        return await count(world) == before + 1

    await eventually(is_written)
    return client


async def count(world: RelayWorld) -> int:
    statement = select(func.count()).select_from(world.relay.tables.presence)
    return await world.database.read(lambda on: int(on.scalar(statement) or 0))


def reports(client: FrameClient) -> list[PresenceReport]:
    return [frame for frame in client.frames if isinstance(frame, PresenceReport)]


def typing(client: FrameClient) -> list[Typing]:
    return [frame for frame in client.frames if isinstance(frame, Typing)]


async def settled(world: RelayWorld, *clients: FrameClient) -> None:
    """Wait until what is known at the node was told, as far as it is told."""
    witness: DeviceAddress = clients[0].owner
    world.relay.presence.reread()
    for client in clients:
        await client.answered(witness)
        await client.answered(witness)


async def test_refused_offline_and_unknown_users_look_alike(world: RelayWorld) -> None:
    world.contacts.visible = {("alice", "offline"), ("alice", "never-announced")}
    await seen(world, "refused")
    await online(world, "never-announced")
    alice = await online(world, "alice")
    names = [UserId(name) for name in ("refused", "offline", "never-announced", "nobody-of-that-name")]
    alice.say(Watch(tuple(names)))
    await eventually(lambda: bool(reports(alice)))
    await settled(world, alice)
    assert [report.states for report in reports(alice)] == [dict.fromkeys(names, OFFLINE)]
    assert alice.errors() == []


async def test_the_hosts_rules_are_asked_about_everybody_alike(
    world: RelayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UserId] = []

    async def may_see(_watcher: UserId, watched: UserId) -> bool:
        asked.append(watched)
        return False

    monkeypatch.setattr(world.contacts, "may_see", may_see)
    await seen(world, "refused")
    alice = await online(world, "alice")
    alice.say(Watch((UserId("refused"), UserId("nobody-of-that-name"))))
    await eventually(lambda: bool(reports(alice)))
    assert sorted(asked) == ["nobody-of-that-name", "refused"]


async def test_a_refused_watcher_hears_of_no_change(world: RelayWorld) -> None:
    alice, bob = await online(world, "alice"), await online(world, "bob")
    alice.say(Watch((BOB,)))
    await eventually(lambda: bool(reports(alice)))
    for state in (ONLINE, AWAY, OFFLINE, ONLINE):
        bob.say(Presence(state))
        await settled(world, bob, alice)
    bob.connection.disconnected()
    await settled(world, alice)
    assert [report.states for report in reports(alice)] == [{BOB: OFFLINE}]


async def test_who_may_not_see_any_more_is_told_offline_within_a_minute(world: RelayWorld) -> None:
    world.contacts.visible = {("alice", "bob")}
    bob, alice = await seen(world, "bob"), await online(world, "alice")
    alice.say(Watch((BOB,)))
    await eventually(lambda: [report.states for report in reports(alice)] == [{BOB: ONLINE}])
    world.contacts.visible.clear()
    world.clock.advance(60)
    bob.connection.alive()
    await world.relay.presence.renew()
    bob.say(Presence(ONLINE))
    await bob.answered(bob.owner)
    world.relay.presence.reread()
    await eventually(lambda: reports(alice)[-1].states == {BOB: OFFLINE})


async def test_lists_that_are_too_long_or_name_nonsense_are_refused_and_change_nothing(world: RelayWorld) -> None:
    alice = await online(world, "alice")
    for users in ([f"user-{n}" for n in range(501)], ["x" * 129], ["bob", "bob"], ["bob", None], "bob", {"bob": 1}):
        alice.connection.receive("watch", {"users": users})
        error = await alice.next(Error)
        assert (error.code, error.fatal) == (ErrorCode.MALFORMED_FRAME, False)
    assert world.relay.presence.watched == 0
    assert reports(alice) == []


async def test_presence_before_hello_is_refused(world: RelayWorld) -> None:
    stranger = FrameClient(world, await world.device("bob"))
    stranger.say(Presence(ONLINE))
    assert (await stranger.next(Error)).code is ErrorCode.HELLO_REQUIRED
    assert await count(world) == 0


async def test_a_flood_of_watches_asks_the_host_about_the_first_only_until_it_has_rested(world: RelayWorld) -> None:
    world.relay.presence.around = world.relay.presence.around._replace(settings=replace(PATIENT, presence_grace=3600))
    asked: list[UserId] = []

    class Counting(Contacts):
        async def may_see(self, _watcher: UserId, watched: UserId) -> bool:
            asked.append(watched)
            return False

    world.relay.presence.around = world.relay.presence.around._replace(contacts=Counting())
    alice = await online(world, "alice")
    for at in range(40):
        alice.say(Watch(tuple(UserId(f"user-{at}-{n}") for n in range(500))))
        await eventually(lambda: len(asked) >= 500)
    await alice.answered(alice.owner)
    await settled(world, alice)
    assert len(asked) == 500
    assert world.relay.presence.watched == 500


async def test_what_an_ended_connection_watched_is_forgotten(world: RelayWorld) -> None:
    alice = await online(world, "alice")
    alice.say(Watch(tuple(UserId(f"user-{n}") for n in range(500))))
    await eventually(lambda: world.relay.presence.watched == 500)
    alice.connection.disconnected()
    assert world.relay.presence.watched == 0


async def test_presence_never_makes_a_client_that_does_not_read_slow(world: RelayWorld) -> None:
    users = tuple(UserId(f"user-{n}-{'x' * 100}") for n in range(500))
    world.contacts.visible = {("alice", user) for user in users}
    alice = await online(world, "alice")
    alice.say(Watch(users))
    await eventually(lambda: len(reports(alice)) == 5)
    alice.readable.clear()
    for change in range(60):
        for user in users:
            for watching in world.relay.presence.watchers(user):
                watching.note(user, (AWAY, ONLINE)[change % 2])
        await asyncio.sleep(0.002)  # whoever would write now may
    assert alice.closed_with is None
    assert 0 < alice.connection.queued <= PATIENT.max_queued
    alice.readable.set()

    def told() -> dict[UserId, PresenceState]:
        return {user: state for report in reports(alice) for user, state in report.states.items()}

    await eventually(lambda: set(told().values()) == {ONLINE})
    assert len(reports(alice)) < 25


async def test_typing_of_somebody_who_hides_or_may_not_be_seen_or_is_not_watched_is_not_passed_on(
    world: RelayWorld,
) -> None:
    world.contacts.visible = {("alice", "hiding"), ("alice", "unwatched")}
    alice = await online(world, "alice")
    refused, hiding, unwatched = (
        await seen(world, "refused"),
        await seen(world, "hiding"),
        await seen(world, "unwatched"),
    )
    hiding.say(Presence(OFFLINE))
    alice.say(Watch((UserId("refused"), UserId("hiding"))))
    await eventually(lambda: bool(reports(alice)))
    for client in (refused, hiding, unwatched):
        client.say(Typing(ALICE, active=True))
        await settled(world, client, alice)
        assert client.errors() == []
    assert typing(alice) == []


async def test_typing_to_somebody_who_takes_no_messages_is_not_passed_on(world: RelayWorld) -> None:
    world.contacts.visible = {("alice", "bob")}
    world.contacts.refused = {("bob", "alice")}
    bob, alice = await seen(world, "bob"), await online(world, "alice")
    alice.say(Watch((BOB,)))
    await eventually(lambda: bool(reports(alice)))
    bob.say(Typing(ALICE, active=True))
    await settled(world, alice)
    assert typing(alice) == []


async def test_typing_cannot_be_said_in_anothers_name(world: RelayWorld) -> None:
    world.contacts.visible = {("alice", "bob"), ("alice", "mallory")}
    await seen(world, "bob")
    mallory, alice = await seen(world, "mallory"), await online(world, "alice")
    alice.say(Watch((BOB, UserId("mallory"))))
    await eventually(lambda: bool(reports(alice)))
    mallory.connection.receive("typing", {"user": "alice", "active": True, "sender": "bob"})
    assert (await mallory.next(Error)).code is ErrorCode.MALFORMED_FRAME
    mallory.say(Typing(ALICE, active=True))
    await eventually(lambda: typing(alice) == [Typing(UserId("mallory"), active=True)])


async def test_a_report_from_a_client_is_a_malformed_frame(world: RelayWorld) -> None:
    mallory = await seen(world, "mallory")
    mallory.connection.receive("presence", {"states": {"bob": "online"}})
    assert (await mallory.next(Error)).code is ErrorCode.MALFORMED_FRAME
    assert await count(world) == 1


async def test_a_flood_of_typing_is_cut_down_and_never_stored(world: RelayWorld) -> None:
    world.contacts.visible = {("alice", "bob")}
    bob, alice = await seen(world, "bob"), await online(world, "alice")
    alice.say(Watch((BOB,)))
    await eventually(lambda: bool(reports(alice)))
    for at in range(100):
        bob.say(Typing(ALICE, active=at % 2 == 0))
        await bob.answered(bob.owner)
    await settled(world, alice)
    assert 0 < len(typing(alice)) <= 5
    assert bob.closed_with is None
    stored = await world.database.read(_envelopes_for(world, "alice"))
    assert stored == 0


async def test_frames_of_presence_count_against_a_flooder(world: RelayWorld) -> None:
    mallory = await online(world, "mallory")
    for _ in range(300):  # in one go, so none can be processed in between
        mallory.say(Presence(ONLINE))
    assert await mallory.closed() is CloseCode.TOO_FAST_OR_SLOW


def _envelopes_for(world: RelayWorld, user: str) -> Any:
    tables = world.relay.tables
    statement = select(func.count()).select_from(
        tables.envelopes.join(tables.inboxes, tables.inboxes.c.id == tables.envelopes.c.inbox_id)
    )
    senders = tables.senders.c
    other = statement.join(tables.senders, senders.id == tables.envelopes.c.sender_id).where(
        tables.inboxes.c.user_id == user, senders.user_id != user
    )
    return lambda on: on.scalar(other)
