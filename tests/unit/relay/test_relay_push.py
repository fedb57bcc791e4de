"""When a device is woken, and when it is left alone.

Timers of equal length end in the order in which they began, and the database works in order. So where a test says that
somebody was not woken, it has somebody else woken who would have come later.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import sqlalchemy

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import FrameClient, RelayWorld, address, eventually
from transport_adapters.base import SeqRange
from transport_adapters.frames import Ack, Deliver, Sent
from transport_adapters.server.push import gateway
from transport_adapters.server.push.gateway import AT_ONCE_PER_HOST, ATTEMPTS, Around, PushGateway, PushSettings
from transport_adapters.server.push.ports import GONE, TAKEN, Paused, PushKind, Subscription, Verdict

AT_ONCE = PushSettings(delay=0, urgent_delay=0, first_retry=0)


class Woken(NamedTuple):
    target: str
    urgent: bool


class Phones:
    """A push service: implements `Provider`."""

    def __init__(self) -> None:
        self.woken: asyncio.Queue[Woken] = asyncio.Queue()
        self.verdicts: deque[Verdict] = deque()
        self.closed = False
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """Happens once, before the service answers."""
        self.answering: dict[str, asyncio.Event] = {}
        """Hosts that answer nothing until their event is set."""

    async def wake(self, subscription: Subscription, *, urgent: bool) -> Verdict:
        self.woken.put_nowait(Woken(subscription.target, urgent))
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        if subscription.host in self.answering:
            await self.answering[subscription.host].wait()
        return self.verdicts.popleft() if self.verdicts else TAKEN

    async def aclose(self) -> None:
        self.closed = True

    async def next(self) -> Woken:
        async with asyncio.timeout(20):
            return await self.woken.get()


class Kept:
    """Subscriptions in memory: implements `Subscriptions`. Every device has one; its endpoint is its user's name."""

    def __init__(self) -> None:
        self.woken_at: dict[DeviceAddress, int] = {}
        self.removed: list[Subscription] = []
        self.kind = PushKind.WEB

    def claim(
        self, _connection: sqlalchemy.Connection, address: DeviceAddress, now: int, pause_ms: int
    ) -> Subscription | Paused | None:
        if any(each.address == address for each in self.removed):
            return None
        left = self.woken_at.get(address, 0) + pause_ms - now
        if left > 0:
            return Paused(left)
        self.woken_at[address] = now
        return Subscription(address, self.kind, address.user_id)

    def remove(self, _connection: sqlalchemy.Connection, subscription: Subscription) -> None:
        self.removed.append(subscription)


class Pushing(NamedTuple):
    gateway: PushGateway
    phones: Phones
    kept: Kept


@pytest.fixture
def push_settings() -> PushSettings:
    return AT_ONCE


@pytest.fixture
async def pushing(world: RelayWorld, push_settings: PushSettings) -> AsyncIterator[Pushing]:
    phones, kept = Phones(), Kept()
    around = Around(world.database, kept, world.relay.mailbox.is_waiting, world.relay.is_live, world.clock)
    gateway = PushGateway(around, {PushKind.WEB: phones}, push_settings)
    world.relay.waker = gateway
    yield Pushing(gateway, phones, kept)
    await gateway.close()


@pytest.fixture
async def sender(world: RelayWorld, alice: DeviceAddress) -> FrameClient:
    client = FrameClient(world, alice)
    await client.online()
    return client


async def test_a_device_that_is_away_is_woken(pushing: Pushing, sender: FrameClient, bob: DeviceAddress) -> None:
    sender.post(bob)
    assert await pushing.phones.next() == Woken("bob", urgent=False)


async def test_a_device_that_is_connected_is_not(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    receiver = FrameClient(world, bob)
    await receiver.online()
    await sender.answered(bob)
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"
    assert pushing.phones.woken.empty()


async def test_what_was_acknowledged_by_the_end_of_the_delay_wakes_nobody(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    receiver = FrameClient(world, bob)
    welcome = await receiver.online()
    sender.post(bob)
    seq = (await receiver.next(Deliver)).seq
    receiver.say(Ack(welcome.epoch, (SeqRange(seq, seq),)))
    await eventually(lambda: nothing_waits(world, bob))
    receiver.connection.disconnected()
    await eventually(lambda: not world.relay.is_live(bob))
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"
    assert pushing.phones.woken.empty()


async def nothing_waits(world: RelayWorld, owner: DeviceAddress) -> bool:
    return not await world.database.read(lambda on: world.relay.mailbox.is_waiting(on, owner))


async def test_many_envelopes_wake_once(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    for _ in range(20):
        await sender.answered(bob)
    await sender.answered(carol)
    assert [(await pushing.phones.next()).target for _ in range(2)] == ["bob", "carol"]
    assert pushing.phones.woken.empty()


@pytest.mark.parametrize("push_settings", [replace(AT_ONCE, pause=0.05)])
async def test_what_comes_within_the_pause_wakes_at_its_end(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    sender.post(bob)
    await pushing.phones.next()
    await sender.answered(bob)
    assert pushing.phones.woken.empty()
    world.clock.advance(1)
    assert (await pushing.phones.next()).target == "bob"


async def test_a_call_is_urgent_and_does_not_wait_for_the_pause_of_messages(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    sender.post(bob)
    assert await pushing.phones.next() == Woken("bob", urgent=False)
    world.clock.advance(3)
    sender.post(bob, lane=Lane.CONTROL)
    assert await pushing.phones.next() == Woken("bob", urgent=True)


async def test_what_is_not_worth_waking_for_wakes_nobody(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    for lane in (Lane.RECEIPT, Lane.BULK):
        sender.post(bob, lane=lane)
        await sender.next(Sent)
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"
    assert pushing.phones.woken.empty()


async def test_what_a_dead_connection_never_took_wakes_when_that_is_noticed(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    receiver = FrameClient(world, bob)
    await receiver.online()
    receiver.readable.clear()
    await sender.answered(bob)
    assert pushing.phones.woken.empty()
    receiver.connection.disconnected()
    assert (await pushing.phones.next()).target == "bob"


async def test_a_dead_subscription_is_forgotten(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    pushing.phones.verdicts.append(GONE)
    sender.post(bob)
    await pushing.phones.next()
    await eventually(lambda: [each.address for each in pushing.kept.removed] == [bob])
    world.clock.advance(60)
    await sender.answered(bob)
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"


async def test_a_service_that_fails_is_tried_again_a_few_times_and_told_of(
    pushing: Pushing, sender: FrameClient, bob: DeviceAddress, caplog: pytest.LogCaptureFixture
) -> None:
    pushing.phones.verdicts.extend([Verdict(retry_after=0.0)] * (ATTEMPTS + 1))
    sender.post(bob)
    for _ in range(ATTEMPTS):
        await pushing.phones.next()
    await eventually(lambda: "could not be reached" in caplog.text)
    assert pushing.phones.woken.empty()
    assert "bob" not in caplog.text


async def test_a_host_that_does_not_answer_holds_up_no_other(
    world: RelayWorld, pushing: Pushing, sender: FrameClient
) -> None:
    pushing.phones.answering["abyss"] = asyncio.Event()
    for number in range(2 * AT_ONCE_PER_HOST):
        await sender.answered(await world.device(f"abyss/{number}"))
    await sender.answered(await world.device("elsewhere/1"))
    targets = [(await pushing.phones.next()).target for _ in range(AT_ONCE_PER_HOST + 1)]
    assert [each.partition("/")[0] for each in targets] == ["abyss"] * AT_ONCE_PER_HOST + ["elsewhere"]
    assert pushing.phones.woken.empty()
    pushing.phones.answering["abyss"].set()
    for _ in range(AT_ONCE_PER_HOST):
        assert (await pushing.phones.next()).target.startswith("abyss/")


async def test_what_waits_for_a_host_that_does_not_answer_is_bounded(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_PER_HOST", 2)
    pushing.phones.answering["abyss"] = asyncio.Event()
    for number in range(3):
        await sender.answered(await world.device(f"abyss/{number}"))
    await sender.answered(await world.device("elsewhere/1"))
    assert [(await pushing.phones.next()).target for _ in range(3)] == ["abyss/0", "abyss/1", "elsewhere/1"]


@pytest.mark.parametrize("push_settings", [replace(AT_ONCE, pause=0.02)])
async def test_a_device_is_woken_once_at_a_time_and_again_for_what_came_meanwhile(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    pushing.phones.answering["bob"] = asyncio.Event()
    await sender.answered(bob)
    assert (await pushing.phones.next()).target == "bob"
    world.clock.advance(60)  # no pause is left
    for user in ("carol", "dave"):
        await sender.answered(bob)
        await sender.answered(await world.device(user))
        assert (await pushing.phones.next()).target == user
    pushing.phones.answering["bob"].set()
    assert (await pushing.phones.next()).target == "bob"


async def test_a_device_that_came_meanwhile_is_not_woken_again(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    pushing.phones.verdicts.append(Verdict(retry_after=0.0))
    pushing.phones.meanwhile = FrameClient(world, bob).online
    await sender.answered(bob)
    assert (await pushing.phones.next()).target == "bob"
    await eventually(lambda: world.relay.is_live(bob))
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"
    assert pushing.phones.woken.empty()


async def test_a_service_that_the_server_no_longer_has_is_not_missed(
    world: RelayWorld, pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    carol = await world.device("carol")
    pushing.kept.kind = PushKind.APNS
    await sender.answered(bob)
    await eventually(lambda: bob in pushing.kept.woken_at)
    pushing.kept.kind = PushKind.WEB
    await sender.answered(carol)
    assert (await pushing.phones.next()).target == "carol"


@pytest.mark.parametrize("push_settings", [PushSettings(delay=3600)])
async def test_closing_waits_for_no_timer_and_wakes_nobody(
    pushing: Pushing, sender: FrameClient, bob: DeviceAddress
) -> None:
    await sender.answered(bob)
    await pushing.gateway.close()
    assert pushing.phones.closed
    assert pushing.phones.woken.empty()


async def test_a_database_that_fails_costs_a_push_and_nothing_else(
    world: RelayWorld,
    pushing: Pushing,
    sender: FrameClient,
    bob: DeviceAddress,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise sqlalchemy.exc.OperationalError("secret statement", {}, Exception("secret"))

    with monkeypatch.context() as broken:
        broken.setattr(pushing.kept, "claim", fail)
        await sender.answered(bob)
        await eventually(lambda: "OperationalError" in caplog.text)
    assert "secret" not in caplog.text
    await sender.answered(bob)
    assert (await pushing.phones.next()).target == "bob"


def test_a_subscription_does_not_show_where_a_device_is_woken() -> None:
    kept = Subscription(address("bob"), PushKind.WEB, "https://push/secret", b"key-", b"auth")
    assert all(each not in repr(kept) for each in ("secret", "key-", "auth"))


async def test_after_its_end_the_gateway_asks_nothing_of_the_database(
    world: RelayWorld, pushing: Pushing, bob: DeviceAddress
) -> None:
    asked: list[DeviceAddress] = []

    def is_live(address: DeviceAddress) -> bool:
        asked.append(address)
        return False

    around = Around(world.database, pushing.kept, world.relay.mailbox.is_waiting, is_live, world.clock)
    gateway = PushGateway(around, {}, AT_ONCE)
    await gateway.close()
    gateway.left(bob)  # a connection that is noticed to be dead meanwhile
    await asyncio.sleep(0.02)
    assert asked == []
