"""`keyserver admin revoke`, in a process of its own, tells the running nodes over the bus what to cut."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from e2ee.wire.identifiers import UserId
from keyserver import admin
from keyserver.app import create_app
from tests.client_world import within
from tests.contract.relay_world import eventually
from tests.databases import on_postgresql  # noqa: F401 - a fixture
from tests.keyserver_world import ORIGIN, TOKEN_SECRET, Clock, running, settings
from tests.servers.redis import Redis
from transport_adapters.server.bus import Resumed
from transport_adapters.server.ports import TokenRefusedError

pytestmark = pytest.mark.usefixtures("on_postgresql")


def environment(database: str, bus: str) -> dict[str, str]:
    """The server's settings, which the operator's shell has, too."""
    return {
        "E2EE_ORIGIN": ORIGIN,
        "E2EE_TOKEN_SECRET": TOKEN_SECRET,
        "E2EE_DATABASE": database,
        "E2EE_BUS": bus,
    }


async def revoke(variables: dict[str, str], *arguments: str) -> Any:
    """Run the command as an operator does."""
    command = [sys.executable, "-m", "keyserver", "admin", "revoke", "--json", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | variables, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return json.loads(output)


@pytest.mark.parametrize("bus", ["postgresql", "redis"])
async def test_a_node_is_told_at_once_to_cut_what_was_revoked(bus: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(Redis()).url if bus == "redis" else bus
        configured = settings(tmp_path / "server.db", bus=url)
        clock = Clock()
        app = create_app(configured, now=clock)
        relay, listening = app.services.relay, asyncio.Event()
        relay.bus.subscribe_nodes(lambda news: listening.set() if isinstance(news, Resumed) else None)
        async with running(app, clock) as server:
            bob, _ = await server.join("bob")
            await within(listening.wait())
            said = await revoke(environment(configured.database, url), "bob", "--device", str(bob.address.device_id))
            assert said["cut_within_seconds"] == 1
            # Looking at tokens again does not count here: this is what it was told.
            await eventually(lambda: relay.cuts == 1)


async def test_a_bus_that_is_away_takes_nothing_from_a_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = settings(tmp_path / "server.db")
    clock = Clock()
    async with running(create_app(configured, now=clock), clock) as server:
        _, bobs = await server.join("bob")
        ended = await bobs.device_token()
        for name, value in environment(configured.database, "redis://127.0.0.1:1").items():
            monkeypatch.setenv(name, value)
        said = await asyncio.to_thread(admin.revoke_user, configured.database, UserId("bob"))
        assert said["cut_within_seconds"] == 10
        with pytest.raises(TokenRefusedError):
            await server.app.services.relay.tokens.verify(ended)
