"""Presence and typing between clients of a real server: off until asked for, said again on every connection."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2ee.wire.identifiers import ConversationId, UserId
from tests.client_world import Actor, ClientWorld, Gate, client_world, eager_socketio
from transport_adapters import events
from transport_adapters.base import PresenceSeen, PresenceState, TypingSeen
from transport_adapters.secure_client import presence
from transport_adapters.secure_client.client import TransportFactory

ONLINE, AWAY, OFFLINE = PresenceState.ONLINE, PresenceState.AWAY, PresenceState.OFFLINE


async def friends(watcher: UserId, watched: UserId) -> bool:
    return {watcher, watched} == {"alice", "bob"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path, may_see=friends) as made:
        service = made.services.relay.presence
        service.around = service.around._replace(settings=replace(service.around.settings, presence_grace=0.0))
        yield made


@pytest.fixture(params=["memory", "socketio"])
def transport(request: pytest.FixtureRequest, world: ClientWorld) -> TransportFactory:
    return eager_socketio if request.param == "socketio" else world.memory


async def sees(watcher: Actor, user: str, state: PresenceState) -> None:
    await watcher.until(lambda: watcher.client.presence.state(user) is state)


async def test_friends_see_each_other_come_and_go(world: ClientWorld, transport: TransportFactory) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    await alice.client.presence.watch(["bob"])
    await alice.event(events.PresenceChanged)
    await bob.client.presence.announce("online")
    await sees(alice, "bob", ONLINE)
    await bob.client.presence.announce("away")
    await sees(alice, "bob", AWAY)
    await bob.client.aclose()
    await sees(alice, "bob", OFFLINE)
    assert [event.state for event in alice.events(events.PresenceChanged)] == [OFFLINE, ONLINE, AWAY, OFFLINE]


async def test_nobody_else_sees_anything(world: ClientWorld) -> None:
    bob, eve = await world.open("bob"), await world.open("eve")
    await bob.client.presence.announce("online")
    await eve.client.presence.watch(["bob", "nobody-of-that-name"])
    await eve.event(events.PresenceChanged, 2)
    assert {event.state for event in eve.events(events.PresenceChanged)} == {OFFLINE}


async def test_what_was_said_is_said_again_after_a_reconnect(world: ClientWorld) -> None:
    gates = Gate(world), Gate(world)
    alice, bob = await world.open("alice", transport=gates[0]), await world.open("bob", transport=gates[1])
    await bob.client.presence.announce("away")
    await alice.client.presence.watch(["bob"])
    await sees(alice, "bob", AWAY)
    await gates[1].shut()
    await sees(alice, "bob", OFFLINE)
    await gates[0].shut()
    gates[1].reopen()
    gates[0].reopen()
    await sees(alice, "bob", AWAY)


async def test_presence_that_was_set_before_the_first_connection_is_announced_on_it(world: ClientWorld) -> None:
    gate = Gate(world)
    alice = await world.open("alice")
    await alice.client.presence.watch(["bob"])
    gate.is_shut = True
    bob = await world.open("bob", transport=gate, online=False)
    await bob.client.presence.announce("online", lease=10)
    gate.reopen()
    await sees(alice, "bob", ONLINE)


async def test_typing_begins_and_ends(world: ClientWorld, transport: TransportFactory) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    await alice.client.presence.watch(["bob"])
    await bob.client.presence.announce("online")
    await sees(alice, "bob", ONLINE)
    for _ in range(20):  # every keystroke
        await bob.client.presence.typing("alice", conversation="team-7")
    assert (await alice.event(events.TypingStarted)).conversation == "team-7"
    await bob.client.presence.typing("alice", conversation="team-7", active=False)
    assert (await alice.event(events.TypingStopped)).conversation == "team-7"
    assert len(alice.events(events.TypingStarted)) == 1


async def test_typing_that_is_not_repeated_ends_by_itself(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "TYPING_SECONDS", 0.05)
    alice, bob = await world.open("alice"), await world.open("bob")
    await alice.client.presence.watch(["bob"])
    await bob.client.presence.announce("online")
    await sees(alice, "bob", ONLINE)
    await bob.client.presence.typing("alice")
    await alice.event(events.TypingStarted)
    await bob.client.aclose()
    await alice.event(events.TypingStopped)


async def test_bad_arguments_are_the_callers_bug_and_say_nothing(world: ClientWorld) -> None:
    alice = await world.open("alice")
    for wrong in (
        alice.client.presence.announce("busy"),
        alice.client.presence.announce("online", lease=9),
        alice.client.presence.announce("online", lease=31),
        alice.client.presence.watch([f"user-{n}" for n in range(501)]),
        alice.client.presence.watch(["not a user"]),
        alice.client.presence.typing("bob", conversation="a b"),
    ):
        with pytest.raises(ValueError):
            await wrong
    assert world.services.relay.presence.watched == 0


async def test_a_server_that_speaks_of_strangers_is_not_heard(world: ClientWorld) -> None:
    alice = await world.open("alice")
    await alice.client.presence.watch(["bob"])
    await alice.event(events.PresenceChanged)
    told = len(alice.told)
    view = alice.client.presence
    for number in range(10_000):
        view.take(PresenceSeen(UserId(f"user-{number}"), ONLINE))
        view.take(TypingSeen(UserId(f"user-{number}"), None, active=True))
    assert len(alice.told) == told
    for number in range(10_000):
        view.take(TypingSeen(UserId("bob"), ConversationId(f"c-{number}"), active=True))
    assert len(alice.events(events.TypingStarted)) == 1_000
    await alice.client.aclose()
    assert not view._typing
