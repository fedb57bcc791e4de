"""Two server processes on one PostgreSQL behind nginx, as docs/operations.md sets them up: one dies, one is drained."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2ee.stores.memory import MemoryStore
from tests.client_world import QUICK, eager_socketio, within
from tests.databases import postgresql
from tests.server_process import ServerProcess
from tests.servers.nginx import Nginx
from tests.servers.process import free_port
from transport_adapters.secure_client.client import SecureClient

TEXTS = [str(number) for number in range(80)]


@dataclass
class Site:
    url: str
    nodes: list[ServerProcess]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    port = free_port()
    settings = {
        "database": postgresql().new_database(),
        "bus": "postgresql",
        "origin": f"http://127.0.0.1:{port}",
        "migrate": "true",
    }
    places = [tmp_path / name for name in ("one", "other")]
    for place in places:
        place.mkdir()
    nodes = [ServerProcess(place, **settings) for place in places]
    try:
        # At once, so that both find the database empty.
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))
        with Nginx(*(node.port for node in nodes), port=port) as proxy:
            yield Site(proxy.url, nodes)
    finally:
        for node in nodes:
            node.kill()


async def open_client(site: Site, user: str, store: MemoryStore) -> SecureClient:
    async def token() -> str:
        return ServerProcess.token(user)

    return await SecureClient.open(
        store=store, server=site.url, token_provider=token, transport=eager_socketio, user=user, pace=QUICK
    )


async def test_nothing_is_lost_or_doubled_while_one_node_is_killed_and_the_other_one_drained(site: Site) -> None:
    stores = {"alice": MemoryStore(), "bob": MemoryStore()}
    clients = {user: await open_client(site, user, store) for user, store in stores.items()}
    received: dict[str, list[str]] = {"alice": [], "bob": []}
    progress = asyncio.Condition()

    async def say(sender: str, recipient: str) -> None:
        for number, text in enumerate(TEXTS):
            await clients[sender].send(recipient, text)
            async with progress:
                while len(received[recipient]) <= number - 20:
                    await progress.wait()

    async def read(user: str) -> None:
        while len(received[user]) < len(TEXTS):
            message = await within(anext(clients[user]), 60)
            await message.done()
            async with progress:
                received[user].append(str(message.data))
                progress.notify_all()

    async def until(share: float) -> None:
        async with progress:
            while len(received["bob"]) < len(TEXTS) * share:
                await progress.wait()

    async def disturb() -> None:
        one, other = site.nodes
        await until(0.2)
        one.kill()
        await until(0.4)
        await asyncio.to_thread(one.start)
        await until(0.6)
        assert await asyncio.to_thread(other.stop) == 0
        await until(0.8)
        await asyncio.to_thread(other.start)

    for sender, recipient in (("alice", "bob"), ("bob", "alice")):
        await clients[sender].send(recipient, "hello")
        assert (await within(anext(clients[recipient]))).data == "hello"
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for work in (say("alice", "bob"), say("bob", "alice"), read("alice"), read("bob"), disturb()):
            group.create_task(work)
    for user, client in clients.items():
        await within(client.flushed())
        assert sorted(received[user]) == sorted(TEXTS)
        await within(client.aclose())
