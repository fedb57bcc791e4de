"""A device is revoked at one node while its live Socket.IO connection is at another one: two nodes, one PostgreSQL."""

import asyncio
from pathlib import Path

import httpx
import pytest

from e2ee.stores.memory import MemoryStore
from keyserver.app import create_app
from keyserver.client import KeyServerRefusedError
from tests.client_world import QUICK, eager_socketio, within
from tests.databases import on_postgresql  # noqa: F401 - a fixture
from tests.keyserver_world import settings
from tests.server_process import ServerProcess
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient

pytestmark = pytest.mark.usefixtures("on_postgresql")


async def test_a_revoked_device_is_cut_at_the_other_node_gets_401_and_does_not_come_back_by_signing(
    tmp_path: Path,
) -> None:
    configured = settings(tmp_path / "server.db", bus="postgresql")
    there = ServerProcess(tmp_path, database=configured.database, bus="postgresql", migrate="true")
    await asyncio.to_thread(there.start)
    here = create_app(configured.model_copy(update={"origin": there.url}))
    ended = asyncio.Event()
    told: list[str] = []

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Ended):
            told.append(event.code)
            ended.set()

    async def host_token() -> str:
        return there.token("bob")

    opened = SecureClient.open(
        store=MemoryStore(),
        server=there.url,
        token_provider=host_token,
        transport=eager_socketio,
        user="bob",
        pace=QUICK,
        on_event=tell,
    )
    try:
        async with (
            here.services.lifespan(here.fastapi),
            httpx.AsyncClient(base_url=there.url) as http,
            await opened as bob,
        ):
            await within(bob.online())
            signs = bob._parts.key_server
            asks = {"Authorization": f"Bearer {await signs.device_token()}"}
            assert (await http.get("/v1/prekeys", headers=asks)).status_code == 200

            assert await here.services.revoke_device("bob", str(bob.address.device_id))
            await within(ended.wait())
            assert told == ["device_revoked"]
            refused = await http.get("/v1/prekeys", headers=asks)
            assert (refused.status_code, refused.json()["code"]) == (401, "device_revoked")
            signs.forget_token()
            with pytest.raises(KeyServerRefusedError) as again:
                await signs.device_token()
            assert again.value.code == "device_revoked"
    finally:
        there.kill()
