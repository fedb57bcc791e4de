"""Clients that share no code with the project, written from docs/protocol.md, against the relay on a real server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import socketio
from sqlalchemy import func, select
from starlette.applications import Starlette

from e2ee.wire.codec import to_base64url
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, relay_world
from tests.contract.socketio_server import served
from transport_adapters.base import ListClaim
from transport_adapters.frames import Deliver, Sent
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.socketio import attach
from transport_adapters.server.tables import ACKED

HERE = Path(__file__).parent / "clients"
ENVELOPES = 13


@pytest.fixture(scope="module")
def node() -> str:
    """Install the pinned packages. A machine without Node is an error, not a reason to skip."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.fail("Node 20.19 or newer is needed: apt-get install nodejs npm", pytrace=False)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=120)
    return found


@pytest.fixture(params=["socketio_client.mjs", "ws_client.mjs", "websockets_client.py", "sse_client.py"])
def command(request: pytest.FixtureRequest) -> list[str]:
    program = str(HERE / request.param)
    return [sys.executable if program.endswith(".py") else request.getfixturevalue("node"), program]


@dataclass
class Site:
    world: RelayWorld
    url: str


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with relay_world(tmp_path, PATIENT) as world:
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, Starlette(routes=endpoints(world.relay))), world.relay)
        async with served(app) as (url, _):
            yield Site(world, url)
            await world.relay.close()


async def run(command: list[str], errand: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a client to its end; return the lines that it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | {"ERRAND": json.dumps(errand)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return [json.loads(line) for line in printed.splitlines()]


def claim(given: ListClaim) -> dict[str, Any]:
    return {"seq": given.seq, "hash": given.hash.hex()}


async def test_it_receives_each_envelope_once_over_a_reconnect_and_its_acks_are_durable(
    site: Site, command: list[str]
) -> None:
    world = site.world
    alice, bob = await world.device("alice"), await world.device("bob")
    at_alice = FrameClient(world, alice)
    await at_alice.online()
    sent = [at_alice.post(bob, b"%d" % number * 300) for number in range(ENVELOPES)]
    for _ in sent:
        await at_alice.next(Sent)
    answer = world.outgoing(bob, alice)
    send = {
        "counter": answer.counter,
        "recipient_list": claim(answer.recipient_list),
        "sender_list": claim(answer.sender_list),
        "envelope": to_base64url(answer.envelope),
    }
    errand = {"url": site.url, "token": world.tokens.issue(bob), "expected": ENVELOPES, "send": send}

    lines = await run(command, errand)

    assert [line["delivered"] for line in lines if "delivered" in line] == [
        to_base64url(each.envelope) for each in sent
    ]
    # It sends the same envelope on both connections: the second time it is known.
    answers = [(line["sent"], line["duplicate"]) for line in lines if "sent" in line]
    assert answers == [(str(answer.envelope_id), False), (str(answer.envelope_id), True)]
    assert lines[-1] == {"done": ENVELOPES}
    assert (await at_alice.next(Deliver)).envelope == answer.envelope
    envelopes, inboxes = world.relay.tables.envelopes, world.relay.tables.inboxes
    left = (
        select(func.count())
        .select_from(envelopes.join(inboxes, inboxes.c.id == envelopes.c.inbox_id))
        .where(inboxes.c.user_id == "bob", envelopes.c.state < ACKED)
    )
    assert await world.database.read(lambda on: on.execute(left).scalar_one()) == 0
