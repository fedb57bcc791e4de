"""kill -9 of the server in the middle of the traffic, again and again, on one database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.ports import Table
from e2ee.stores.memory import MemoryStore
from tests.client_world import QUICK, eager_socketio, within
from tests.server_process import ServerProcess
from transport_adapters.secure_client.client import SecureClient

TEXTS = [str(number) for number in range(120)]
KILLS = 3


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        process.kill()


async def open_client(server: ServerProcess, user: str, store: MemoryStore) -> SecureClient:
    async def token() -> str:
        return server.token(user)

    return await SecureClient.open(
        store=store, server=server.url, token_provider=token, transport=eager_socketio, user=user, pace=QUICK
    )


async def test_a_server_killed_in_the_middle_of_the_traffic_loses_and_doubles_nothing(server: ServerProcess) -> None:
    stores = {"alice": MemoryStore(), "bob": MemoryStore()}
    clients = {user: await open_client(server, user, store) for user, store in stores.items()}
    received: dict[str, list[str]] = {"alice": [], "bob": []}
    progress = asyncio.Condition()

    async def say(sender: str, recipient: str) -> None:
        for number, text in enumerate(TEXTS):
            await clients[sender].send(recipient, text)
            # A little ahead of the reader, so that each kill meets messages on every part of the way.
            async with progress:
                while len(received[recipient]) <= number - 30:
                    await progress.wait()

    async def read(user: str) -> None:
        while len(received[user]) < len(TEXTS):
            message = await within(anext(clients[user]), 60)
            await message.done()
            async with progress:
                received[user].append(str(message.data))
                progress.notify_all()

    async def disturb() -> None:
        for kill in range(1, KILLS + 1):
            async with progress:
                while len(received["bob"]) <= len(TEXTS) * kill // (KILLS + 1):
                    await progress.wait()
            server.kill()
            await asyncio.to_thread(server.start)

    # The first contact needs the server; what follows does not wait for it.
    await clients["alice"].send("bob", "hello")
    assert (await within(anext(clients["bob"]))).data == "hello"
    await clients["bob"].send("alice", "hello")
    assert (await within(anext(clients["alice"]))).data == "hello"
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for work in (say("alice", "bob"), say("bob", "alice"), read("alice"), read("bob"), disturb()):
            group.create_task(work)
    for user, client in clients.items():
        await within(client.flushed())
        assert sorted(received[user]) == sorted(TEXTS)
        with stores[user].read() as tx:
            assert tx.count(Table.MESSAGE_IDS) == len(TEXTS) + 1
            assert tx.count(Table.UNREADABLE) == tx.count(Table.OUTBOX) == 0
        await client.aclose()
