"""Several bridges to one broker, and what happens when one of them, the broker or a program dies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mqtt_site import MqttSite, bridge_settings, mqtt_site
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, eventually, relay_world, within
from tests.servers.mosquitto import Mosquitto
from transport_adapters.base import Accepted, TransportUnavailableError
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Error
from transport_adapters.server.mqtt_accounts import BUCKETS, Topics
from transport_adapters.server.mqtt_bridge import MqttBridge
from transport_adapters.text import encode_frame

TOPICS = Topics("e2ee")
LEASE = 6


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as started:
        yield started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path) as made:
        yield made


@pytest.fixture
async def site(world: RelayWorld, broker: Mosquitto) -> AsyncIterator[MqttSite]:
    async with mqtt_site(world, broker) as made:
        yield made


@pytest.fixture
async def second(world: RelayWorld, site: MqttSite) -> AsyncIterator[MqttBridge]:
    """Another bridge, after the two have shared the buckets out."""
    bridge = MqttBridge(world.relay, bridge_settings(site.broker, site.proxy.port))
    await bridge.start()
    await eventually(lambda: len(bridge.buckets) == len(site.bridge.buckets) == BUCKETS // 2)
    assert bridge.buckets | site.bridge.buckets == frozenset(range(BUCKETS))
    yield bridge
    await bridge.close()


def bucket(device: DeviceAddress) -> int:
    return int(TOPICS.of(device).name[0], 16)


async def device_of(world: RelayWorld, bridge: MqttBridge) -> DeviceAddress:
    """Register a device that a bridge serves."""
    for number in range(1, 200):
        name = f"user-{number}-of-{min(bridge.buckets)}"
        device = await world.device(name)
        if bucket(device) in bridge.buckets:
            return device
    raise AssertionError


@asynccontextmanager
async def online(site: MqttSite, world: RelayWorld, device: DeviceAddress) -> AsyncIterator[Peer]:
    async def token() -> str:
        return world.tokens.issue(device)

    cell = CursorCell()
    peer = Peer(site.transport(token, cell, EAGER_LINK), cell)
    await peer.online()
    yield peer
    await peer.close()


async def kill(bridge: MqttBridge) -> None:
    """End a bridge as SIGKILL would: nothing is given back, nobody is told."""
    task, bridge._task = bridge._task, None
    assert task is not None
    task.cancel()
    await asyncio.wait([task])


async def send_through(peer: Peer, world: RelayWorld, sender: DeviceAddress, recipient: DeviceAddress) -> bytes:
    """Send until it was answered, as an outbox does."""
    outgoing = world.outgoing(sender, recipient)
    while True:
        try:
            assert isinstance(await within(peer.transport.send(outgoing)), Accepted)
            return outgoing.envelope
        except TransportUnavailableError:
            await asyncio.sleep(0.01)


async def test_devices_of_two_bridges_talk(site: MqttSite, second: MqttBridge, world: RelayWorld) -> None:
    alice, bob = await device_of(world, site.bridge), await device_of(world, second)
    async with online(site, world, alice) as at_alice, online(site, world, bob) as at_bob:
        outgoing = world.outgoing(alice, bob)
        await within(at_alice.transport.send(outgoing))
        assert (await at_bob.next()).envelope == outgoing.envelope


async def test_a_bridge_that_is_killed_is_replaced_and_its_devices_come_to_the_other(
    site: MqttSite, second: MqttBridge, world: RelayWorld
) -> None:
    alice, bob = await device_of(world, site.bridge), await device_of(world, second)
    async with online(site, world, alice) as at_alice, online(site, world, bob) as at_bob:
        await kill(second)
        world.clock.advance(LEASE)
        envelope = await send_through(at_alice, world, alice, bob)
        await eventually(lambda: len(site.bridge.buckets) == BUCKETS)
        await at_bob.online()  # it was told by the one that took over: it had nothing to say itself
        assert (await at_bob.next()).envelope == envelope
        assert at_bob.deliveries.empty()


async def test_what_is_still_under_way_of_an_earlier_connection_is_not_taken(site: MqttSite, world: RelayWorld) -> None:
    alice = await world.device("alice")
    async with online(site, world, alice) as at_alice:
        assert site.bridge._lines is not None
        ended = Error(ErrorCode.REPLACED, "of a connection before", close_code=CloseCode.REPLACED)
        late = site.bridge._lines.session.publish(TOPICS.of(alice).down, encode_frame(ended).encode(), bytes(16))
        assert await within(late)
        await within(at_alice.transport.send(world.outgoing(alice, alice)))
        assert not at_alice.outcome.done()
        assert at_alice.connected.empty()


async def test_a_bridge_that_closes_hands_its_devices_over(
    site: MqttSite, second: MqttBridge, world: RelayWorld
) -> None:
    bob = await device_of(world, second)
    async with online(site, world, bob) as at_bob:
        await second.close()
        await eventually(lambda: len(site.bridge.buckets) == BUCKETS)
        await at_bob.online()
        await eventually(lambda: world.relay.is_live(bob))


async def test_everything_arrives_once_though_the_broker_is_killed(tmp_path: Path, world: RelayWorld) -> None:
    with Mosquitto() as broker:
        async with mqtt_site(world, broker) as site:
            alice, bob = await world.device("alice"), await world.device("bob")
            async with online(site, world, alice) as at_alice, online(site, world, bob) as at_bob:
                sent = [await send_through(at_alice, world, alice, bob) for _ in range(3)]
                broker.kill()
                broker.start()
                sent += [await send_through(at_alice, world, alice, bob) for _ in range(3)]
                received: dict[int, bytes | None] = {}
                while len(received) < len(sent):
                    delivery = await at_bob.next()  # at least once, until it is acknowledged
                    received[delivery.seq] = delivery.envelope
                assert [received[seq] for seq in sorted(received)] == sent


async def test_a_device_whose_bridge_is_gone_learns_so_from_its_next_frame(site: MqttSite, world: RelayWorld) -> None:
    alice = await world.device("alice")
    async with online(site, world, alice) as at_alice:
        await kill(site.bridge)
        with pytest.raises(TransportUnavailableError):
            await within(at_alice.transport.send(world.outgoing(alice, alice)), 5)
        await site.bridge.start()  # its lease is still its own
        await at_alice.online()
