"""Clients that share no code with the project, written from docs/protocol.md, against the relay on a real server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import socketio
from starlette.applications import Starlette

from e2ee.wire.codec import to_base64url
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mqtt_site import bridge_settings
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually, relay_world
from tests.contract.socketio_server import served
from tests.servers.mosquitto import Mosquitto
from transport_adapters.base import ListClaim, Outgoing
from transport_adapters.frames import Deliver, Sent
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.mqtt_accounts import BUCKETS
from transport_adapters.server.mqtt_bridge import MqttBridge
from transport_adapters.server.settings import RelaySettings
from transport_adapters.server.socketio import attach

HERE = Path(__file__).parent / "clients"
ENVELOPES = 13
RESTLESS = replace(PATIENT, ping_interval=0.1, silence_timeout=2.0)
HEARTBEATS = 25
"""More of them, one after another, than fit into the time after which the relay calls a client silent."""


@pytest.fixture(scope="module")
def node() -> str:
    """Install the pinned packages. A machine without Node is an error, not a reason to skip."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.fail("Node 20.19 or newer is needed: apt-get install nodejs npm", pytrace=False)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=120)
    return found


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto(tls=False) as started:
        yield started


@pytest.fixture(
    params=["socketio_client.mjs", "ws_client.mjs", "mqtt_client.mjs", "websockets_client.py", "sse_client.py"]
)
def command(request: pytest.FixtureRequest) -> list[str]:
    program = str(HERE / request.param)
    return [sys.executable if program.endswith(".py") else request.getfixturevalue("node"), program]


@dataclass
class Site:
    world: RelayWorld
    url: str

    def errand(self, owner: DeviceAddress, expected: int, send: Outgoing, heartbeats: int = 0) -> dict[str, Any]:
        return {
            "url": self.url,
            "token": self.world.tokens.issue(owner),
            "expected": expected,
            "heartbeats": heartbeats,
            "send": {
                "counter": send.counter,
                "recipient_list": claim(send.recipient_list),
                "sender_list": claim(send.sender_list),
                "envelope": to_base64url(send.envelope),
            },
        }


@asynccontextmanager
async def site(
    directory: Path, broker: Mosquitto, settings: RelaySettings = PATIENT, heartbeat: float = 15
) -> AsyncIterator[Site]:
    """Serve a relay over everything that it speaks; `heartbeat` is Engine.IO's."""
    async with relay_world(directory, settings) as world:
        bridge = MqttBridge(world.relay, bridge_settings(broker, broker.port))
        await bridge.start()
        await eventually(lambda: len(bridge.buckets) == BUCKETS)
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=heartbeat, ping_timeout=2)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, Starlette(routes=endpoints(world.relay, mqtt=bridge))), world.relay)
        async with served(app) as (url, _):
            yield Site(world, url)
            await bridge.close()
            await world.relay.close()


async def run(command: list[str], errand: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a client to its end; return the lines that it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"ERRAND": json.dumps(errand)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    return [json.loads(line) for line in output.splitlines()]


def claim(given: ListClaim) -> dict[str, Any]:
    return {"seq": given.seq, "hash": given.hash.hex()}


def printed(lines: list[dict[str, Any]], name: str) -> list[Any]:
    return [line[name] for line in lines if name in line]


async def test_it_receives_each_envelope_once_over_a_reconnect_and_its_acks_are_durable(
    tmp_path: Path, broker: Mosquitto, command: list[str]
) -> None:
    async with site(tmp_path, broker) as here:
        world = here.world
        alice, bob = await world.device("alice"), await world.device("bob")
        at_alice = FrameClient(world, alice)
        await at_alice.online()
        sent = [at_alice.post(bob, b"%d" % number * 300) for number in range(ENVELOPES)]
        for _ in sent:
            await at_alice.next(Sent)
        answer = world.outgoing(bob, alice)

        lines = await run(command, here.errand(bob, ENVELOPES, answer))

        assert printed(lines, "delivered") == [to_base64url(each.envelope) for each in sent]
        # What the relay still had for it when each connection began: the first one took seven and left the rest.
        assert printed(lines, "left") == [ENVELOPES, ENVELOPES - 7]
        # It sends the same envelope on both connections: the second time it is known.
        assert printed(lines, "sent") == [str(answer.envelope_id)] * 2
        assert printed(lines, "duplicate") == [False, True]
        assert lines[-1]["done"] == ENVELOPES
        assert (await at_alice.next(Deliver)).envelope == answer.envelope

        # A second run finds nothing but what was sent since: older rows would come before it.
        fresh = at_alice.post(bob, b"fresh")
        await at_alice.next(Sent)
        lines = await run(command, here.errand(bob, 1, answer))
        assert printed(lines, "delivered") == [to_base64url(fresh.envelope)]
        assert printed(lines, "left") == [1, 0]
        assert printed(lines, "duplicate") == [True, True]


async def test_it_acknowledges_a_row_that_has_lost_its_envelope(
    tmp_path: Path, broker: Mosquitto, command: list[str]
) -> None:
    async with site(tmp_path, broker) as here:
        world = here.world
        alice, bob = await world.device("alice"), await world.device("bob")
        at_alice = FrameClient(world, alice)
        await at_alice.online()
        sent = [at_alice.post(bob, ttl=ttl) for ttl in (3600, 1, 3600)]
        for _ in sent:
            await at_alice.next(Sent)
        world.clock.advance(2)
        answer = world.outgoing(bob, alice)

        lines = await run(command, here.errand(bob, len(sent), answer))

        assert printed(lines, "delivered") == [to_base64url(sent[0].envelope), to_base64url(sent[2].envelope)]
        assert printed(lines, "dropped") == [str(sent[1].envelope_id)]
        assert printed(await run(command, here.errand(bob, 0, answer)), "left") == [0, 0]


async def test_it_answers_pings_and_so_outlives_the_time_of_silence(
    tmp_path: Path, broker: Mosquitto, command: list[str]
) -> None:
    async with site(tmp_path, broker, RESTLESS, heartbeat=0.1) as here:
        world = here.world
        alice, bob = await world.device("alice"), await world.device("bob")
        lines = await run(command, here.errand(bob, 0, world.outgoing(bob, alice), HEARTBEATS))
        assert lines[-1]["heartbeats"] >= HEARTBEATS
        assert printed(lines, "duplicate") == [False, True]
