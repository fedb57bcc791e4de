"""Two nodes on one PostgreSQL: what one of them stores, cuts or lets in, the other one hears of."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mqtt_site import bridge_settings, mqtt_site
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    FrameClient,
    Peer,
    RelayWorld,
    address,
    eventually,
    two_nodes,
    within,
)
from tests.databases import postgresql
from tests.servers.mosquitto import Mosquitto
from tests.servers.redis import Redis
from transport_adapters.base import Accepted, Outgoing, TransportUnavailableError
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Deliver, Error, Sent, Welcome
from transport_adapters.mqtt_session import MqttSession, NotAuthorizedError, broker_at
from transport_adapters.server.bus import Bus
from transport_adapters.server.bus_postgresql import PostgreSqlWire
from transport_adapters.server.bus_redis import RedisWire
from transport_adapters.server.mqtt_accounts import BUCKETS, Topics
from transport_adapters.server.mqtt_bridge import MqttBridge
from transport_adapters.server.nodes import NodesBus
from transport_adapters.server.settings import DEFAULT_RELAY


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def url() -> str:
    return postgresql().new_database()


@pytest.fixture(params=["postgresql", "redis"])
def buses(request: pytest.FixtureRequest, url: str) -> tuple[Bus, Bus]:
    if request.param == "postgresql":
        return NodesBus(PostgreSqlWire(url, "test")), NodesBus(PostgreSqlWire(url, "test"))
    server: Redis = request.getfixturevalue("redis")
    return NodesBus(RedisWire(server.url, url)), NodesBus(RedisWire(server.url, url))


async def hear_each_other(nodes: list[RelayWorld]) -> None:
    """Wait until both nodes are on the bus: a device that both let in is ended on one."""
    one, other = nodes
    probe = await one.device("probe")
    first, second = FrameClient(one, probe, instance=1), FrameClient(other, probe, instance=2)
    await first.online()
    one.clock.advance(1)
    await second.online()
    await eventually(lambda: first.closed_with is CloseCode.REPLACED)


@pytest.fixture
async def nodes(url: str, buses: tuple[Bus, Bus]) -> AsyncIterator[list[RelayWorld]]:
    # The safety re-read comes after an hour: what is heard here was said on the bus.
    async with two_nodes(url, buses, PATIENT) as made:
        await hear_each_other(made)
        yield made


async def test_an_envelope_stored_at_one_node_is_delivered_at_the_other(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    alice, bob = await one.device("alice"), await one.device("bob")
    at_alice, at_bob = FrameClient(one, alice), FrameClient(other, bob)
    await at_alice.online()
    await at_bob.online()
    for _ in range(20):
        sent = at_alice.post(bob)
        assert (await at_bob.next(Deliver)).envelope == sent.envelope


async def test_a_revoked_device_is_cut_at_the_other_node(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    alice, bob = await one.device("alice"), await one.device("bob")
    at_alice, at_bob = FrameClient(other, alice), FrameClient(other, bob)
    await at_alice.online()
    await at_bob.online()
    one.relay.cut(alice)
    assert (await at_alice.next(Error)).code is ErrorCode.DEVICE_REVOKED
    await eventually(lambda: at_alice.closed_with is CloseCode.REVOKED)
    assert at_bob.closed_with is None


async def test_a_device_that_connects_elsewhere_ends_its_connection_here(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    alice = await one.device("alice")
    for number in range(1, 5):
        here, there = (one, other) if number % 2 else (other, one)
        before, after = FrameClient(here, alice, number), FrameClient(there, alice, number + 1)
        await before.online()
        await after.online()
        await eventually(lambda client=before: client.closed_with is CloseCode.REPLACED)
        assert after.closed_with is None
        after.connection.disconnected()


async def test_a_connection_that_came_late_of_two_of_one_program_is_the_one_that_ends(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    alice = await one.device("alice")
    newer, older = FrameClient(one, alice, number=5), FrameClient(other, alice, number=4)
    await newer.online()
    older.hello()
    await eventually(lambda: older.closed_with is CloseCode.REPLACED)
    assert newer.closed_with is None


async def test_of_two_programs_that_connect_at_once_exactly_one_stays(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    for number in range(5):
        alice = await one.device(f"alice{number}")
        first, second = FrameClient(one, alice, instance=1), FrameClient(other, alice, instance=2)
        for each in (first, second):
            each.hello()
        await second.next(Welcome)
        await eventually(lambda client=first: client.closed_with is CloseCode.REPLACED)
        assert second.closed_with is None


async def test_of_one_hello_that_two_nodes_take_both_connections_end_but_not_for_good(nodes: list[RelayWorld]) -> None:
    one, other = nodes
    alice = await one.device("alice")
    first, second = FrameClient(one, alice), FrameClient(other, alice)
    for each in (first, second):
        each.hello()
    await eventually(lambda: {first.closed_with, second.closed_with} == {CloseCode.DRAINING})


async def test_ten_senders_at_each_of_two_nodes_fill_one_inbox_without_a_hole(nodes: list[RelayWorld]) -> None:
    bob = await nodes[0].device("bob")
    senders = [FrameClient(nodes[at % 2], await nodes[0].device(f"sender{at}")) for at in range(20)]
    for sender in senders:
        await sender.online()
    at_bob = FrameClient(nodes[1], bob)
    await at_bob.online()
    for _ in range(10):
        for sender in senders:
            sender.post(bob)
    for sender in senders:
        for _ in range(10):
            assert not (await sender.next(Sent)).duplicate
    seqs = [(await at_bob.next(Deliver)).seq for _ in range(200)]
    assert sorted(seqs) == list(range(1, 201))


# --- the bus fails -------------------------------------------------------------------------------------------


def unheard() -> Bus:
    """A bus whose broker is not there."""
    return NodesBus(RedisWire("redis://127.0.0.1:1", "test"))


async def test_a_revocation_that_the_bus_did_not_carry_is_noticed_by_asking_again(url: str) -> None:
    deaf = replace(PATIENT, reread_interval=0.02)
    async with two_nodes(url, (unheard(), unheard()), deaf) as nodes:
        one, other = nodes
        alice = await one.device("alice")
        at_alice = FrameClient(other, alice)
        await at_alice.online()
        one.tokens.refused[alice] = "device_revoked"
        one.relay.cut(alice)
        await eventually(lambda: at_alice.closed_with is CloseCode.REVOKED)


async def test_an_envelope_of_which_the_bus_said_nothing_is_found_by_reading_again(url: str) -> None:
    deaf = replace(PATIENT, reread_interval=0.02)
    async with two_nodes(url, (unheard(), unheard()), deaf) as nodes:
        alice, bob = await nodes[0].device("alice"), await nodes[0].device("bob")
        at_alice, at_bob = FrameClient(nodes[0], alice), FrameClient(nodes[1], bob)
        await at_alice.online()
        await at_bob.online()
        sent = at_alice.post(bob)
        assert (await at_bob.next(Deliver)).envelope == sent.envelope


def test_without_a_bus_a_revocation_takes_at_most_15_seconds() -> None:
    assert DEFAULT_RELAY.reread_interval + 5 <= 15, "and 5 for the answer of a busy database"


async def test_a_broker_that_dies_and_comes_back_is_used_again_and_nothing_is_lost(url: str) -> None:
    with Redis() as server:
        buses = NodesBus(RedisWire(server.url, "x")), NodesBus(RedisWire(server.url, "x"))
        async with two_nodes(url, buses, PATIENT) as nodes:
            await hear_each_other(nodes)
            alice, bob = await nodes[0].device("alice"), await nodes[0].device("bob")
            at_alice, at_bob = FrameClient(nodes[0], alice), FrameClient(nodes[1], bob)
            await at_alice.online()
            await at_bob.online()
            await asyncio.to_thread(server.kill)
            sent = [at_alice.post(bob) for _ in range(3)]
            for _ in sent:
                await at_alice.next(Sent)
            await asyncio.to_thread(server.start)
            assert [(await at_bob.next(Deliver)).envelope for _ in sent] == [each.envelope for each in sent]
            more = at_alice.post(bob)
            assert (await at_bob.next(Deliver)).envelope == more.envelope


async def test_a_device_whose_hello_two_bridges_take_comes_back_when_one_of_them_lets_go(
    nodes: list[RelayWorld],
) -> None:
    one, other = nodes
    with Mosquitto(tls=False) as broker:
        async with mqtt_site(one, broker) as site:
            settings = replace(bridge_settings(broker, site.proxy.port), renew_interval=3600)
            second = MqttBridge(other.relay, settings)
            await second.start()
            await eventually(lambda: len(site.bridge.buckets) == BUCKETS // 2 and second._lines is not None)
            assert second._lines is not None
            # It takes itself for the one that serves them all, as one does that slept for longer than its lease.
            second._buckets = frozenset(range(BUCKETS))
            await second._lines.session.subscribe(*map(second._topics.ups, range(BUCKETS)))
            names = (f"alice-{number}" for number in range(200))
            alice = await one.device(next(name for name in names if bucket(address(name)) in site.bridge.buckets))

            async def token() -> str:
                return one.tokens.issue(alice)

            cell = CursorCell()
            peer = Peer(site.transport(token, cell, EAGER_LINK), cell)
            await eventually(lambda: site.proxy.accepted >= 4 or peer.outcome.done())  # each hello is taken twice
            await second.close()
            await eventually(lambda: one.relay.is_live(alice))
            await send_until_accepted(peer, one.outgoing(alice, alice))
            assert not peer.outcome.done()
            await peer.close()


def bucket(device: DeviceAddress) -> int:
    return int(Topics("e2ee").of(device).name[0], 16)


async def send_until_accepted(peer: Peer, outgoing: Outgoing) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                assert isinstance(await peer.transport.send(outgoing), Accepted)
            except TransportUnavailableError:
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_device_revoked_at_one_node_is_cut_off_the_broker_that_the_other_one_bridges_to(
    nodes: list[RelayWorld],
) -> None:
    one, other = nodes
    with Mosquitto(tls=False) as broker:
        async with mqtt_site(other, broker) as site:
            mallory = await other.device("mallory")
            token = other.tokens.issue(mallory)
            access = await site.bridge.access(token, anew=False)
            session = await MqttSession.open(broker_at(broker.url), access.account, take=lambda _: None)
            one.tokens.refused[mallory] = "device_revoked"
            one.relay.cut(mallory)
            await within(session.ended.wait(), 1)
            with pytest.raises(NotAuthorizedError):
                await MqttSession.open(broker_at(broker.url), access.account, take=lambda _: None)
