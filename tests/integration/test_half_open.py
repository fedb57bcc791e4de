"""A connection on which nothing comes any more is given up in bounded time, on every transport; an idle one is not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import socketio
from starlette.applications import Starlette

from e2ee.wire.identifiers import DeviceAddress
from tests.chaos_proxy import Admission, Weather
from tests.chaos_roads import BROKERED, NETWORKED, XMPP_PASSWORD, XMPP_USER, NetworkRoad, Road, road
from tests.contract.brokers import Brokers, joined
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    Peer,
    RelayWorld,
    eventually,
    relay_world,
    within,
)
from tests.contract.socketio_server import served
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import Prosody
from transport_adapters.base import TransportUnavailableError
from transport_adapters.exchange import LinkOptions
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.socketio import attach

HEARTBEAT = 0.05
PATIENCE = replace(EAGER_LINK, silence_timeout=0.5, connect_timeout=0.5, hello_timeout=0.5)
LONGER = replace(PATIENCE, silence_timeout=2.0)
"""Where heartbeats have to come: forty in that time, so that a machine that stands still for a second is no silence."""


@dataclass
class Scene:
    world: RelayWorld
    alice: DeviceAddress
    bob: DeviceAddress
    road: Road
    peer: Peer


@pytest.fixture(scope="module")
def brokers() -> Iterator[tuple[Mosquitto, Prosody]]:
    with Mosquitto(tls=False) as mosquitto, Prosody() as prosody:
        prosody.register(XMPP_USER, XMPP_PASSWORD)
        yield mosquitto, prosody


@pytest.fixture(params=NETWORKED)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    brokers = request.getfixturevalue("brokers") if request.param in BROKERED else None
    async with opened(tmp_path, request.param, brokers) as made:
        yield made


@pytest.fixture(params=NETWORKED)
async def idle(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    brokers = request.getfixturevalue("brokers") if request.param in BROKERED else None
    async with opened(tmp_path, request.param, brokers, LONGER) as made:
        yield made


@asynccontextmanager
async def opened(
    directory: Path, name: str, brokers: Brokers, patience: LinkOptions = PATIENCE
) -> AsyncIterator[Scene]:
    settings = replace(PATIENT, ping_interval=HEARTBEAT)
    async with relay_world(directory, settings) as world, joined(name, brokers, world) as (bridge, port):
        alice, bob = await world.device("alice"), await world.device("bob")
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=HEARTBEAT, ping_timeout=5)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, Starlette(routes=endpoints(world.relay, mqtt=bridge))), world.relay)
        async with (
            served(app) as (url, _),
            road(name, port or int(url.rpartition(":")[2]), None, patience) as way,
        ):

            async def token() -> str:
                return world.tokens.issue(alice)

            cell = CursorCell()
            peer = Peer(way.transport(url, token=token, cursor=cell), cell)
            await peer.online()
            yield Scene(world, alice, bob, way, peer)
            await peer.close()
            await world.relay.close()
        await sio.shutdown()


async def test_a_half_open_connection_is_given_up_and_made_anew(scene: Scene) -> None:
    scene.road.half_open()
    await scene.peer.online()
    # And nothing is left that would hold the new one up.
    await within(scene.peer.transport.send(scene.world.outgoing(scene.alice, scene.bob)))


async def test_a_half_open_connection_with_full_buffers_is_given_up_as_well(scene: Scene) -> None:
    scene.road.weather = Weather(delay=3600, piece=100)  # nothing is read any more
    outgoing = [scene.world.outgoing(scene.alice, scene.bob, bytes(60_000)) for _ in range(60)]
    sends = [asyncio.create_task(scene.peer.transport.send(each)) for each in outgoing]
    results = await within(asyncio.gather(*sends, return_exceptions=True))
    assert {type(each) for each in results} == {TransportUnavailableError}
    scene.road.weather = Weather()
    await scene.peer.online()
    await within(scene.peer.transport.send(outgoing[0]))


async def test_a_server_that_accepts_and_says_nothing_is_given_up(scene: Scene) -> None:
    scene.road.admission = Admission.SWALLOWED
    scene.road.reset()
    assert isinstance(scene.road, NetworkRoad)
    way, accepted = scene.road, scene.road.accepted
    await eventually(lambda: way.accepted >= accepted + 2)
    scene.road.heal()
    await scene.peer.online()


async def test_an_idle_connection_is_kept_alive_by_the_heartbeat(idle: Scene) -> None:
    await asyncio.sleep(1.2 * LONGER.silence_timeout)
    await within(idle.peer.transport.send(idle.world.outgoing(idle.alice, idle.bob)))
    assert idle.peer.connected.empty()
