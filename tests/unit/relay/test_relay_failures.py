"""The relay when something around it fails: the database, the host's hook, a transport."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import FrameClient, RelayWorld, relay_world
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Credit, Deliver, Error
from transport_adapters.server.ports import Database
from transport_adapters.server.settings import RelaySettings

T = TypeVar("T")


class FailingDatabase:
    """A database whose writes fail while `broken`, or wait while `held`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.broken = False
        self.held: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def write(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        if self.held is not None:
            self.asked.set()
            await self.held.wait()
        if self.broken:
            raise sqlalchemy.exc.OperationalError("INSERT secret-statement", ("secret-parameter",), Exception())
        return await self._database.write(work)

    async def read(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        if self.broken:
            raise sqlalchemy.exc.OperationalError("SELECT secret-statement", ("secret-parameter",), Exception())
        return await self._database.read(work)


@pytest.fixture
async def failing(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[tuple[RelayWorld, FailingDatabase]]:
    async with relay_world(tmp_path, settings, wrap=FailingDatabase) as world:
        assert isinstance(world.relay.database, FailingDatabase)
        yield world, world.relay.database


async def test_a_failing_database_refuses_each_send_and_the_connection_lives(
    failing: tuple[RelayWorld, FailingDatabase], caplog: pytest.LogCaptureFixture
) -> None:
    world, database = failing
    alice, bob = await world.device("alice"), await world.device("bob")
    client = FrameClient(world, alice)
    await client.online()
    database.broken = True
    names = [client.post(bob).envelope_id for _ in range(3)]
    errors = [await client.next(Error) for _ in names]
    assert [(error.code, error.envelope_id, error.fatal) for error in errors] == [
        (ErrorCode.INTERNAL, name, False) for name in names
    ]
    database.broken = False
    await client.answered(bob)
    assert "secret" not in caplog.text


async def test_a_failing_database_at_hello_asks_to_come_back(failing: tuple[RelayWorld, FailingDatabase]) -> None:
    world, database = failing
    client = FrameClient(world, await world.device("bob"))
    database.broken = True
    client.hello()
    assert await client.closed() is CloseCode.DRAINING


async def test_a_failing_database_during_delivery_asks_to_come_back(
    failing: tuple[RelayWorld, FailingDatabase],
) -> None:
    world, database = failing
    client = FrameClient(world, await world.device("bob"))
    await client.online()
    database.broken = True
    client.say(Credit(1, 1))
    assert await client.closed() is CloseCode.DRAINING


async def test_what_was_begun_is_stored_and_announced_though_its_connection_ended(
    failing: tuple[RelayWorld, FailingDatabase],
) -> None:
    world, database = failing
    alice, bob = await world.device("alice"), await world.device("bob")
    sender, receiver = FrameClient(world, alice), FrameClient(world, bob)
    await sender.online()
    await receiver.online()
    database.held = asyncio.Event()
    outgoing = sender.post(bob)
    await database.asked.wait()
    sender.connection.disconnected()
    database.held.set()
    assert (await receiver.next(Deliver)).envelope == outgoing.envelope


async def test_a_failing_contact_hook_refuses_the_send_and_the_connection_lives(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> bool:
        raise RuntimeError("secret of the host")

    client = FrameClient(world, alice)
    await client.online()
    with monkeypatch.context() as patch:
        patch.setattr(world.contacts, "may_contact", fails)
        client.post(bob)
        assert (await client.next(Error)).code is ErrorCode.INTERNAL
    await client.answered(bob)


async def test_a_transport_that_fails_oddly_ends_only_its_connection(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_frame: object) -> None:
        raise KeyError("secret of the library")

    client, other = FrameClient(world, bob), FrameClient(world, alice)
    monkeypatch.setattr(client, "send", fails)
    client.hello()
    await client.closed()
    await other.online()
