"""SecureClient over each transport by its name, against the standalone server's application."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.client_world import ClientWorld, client_world
from tests.servers.mosquitto import Mosquitto
from transport_adapters.secure_client.opening import TRANSPORTS


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto(tls=False) as started:
        yield started


@pytest.fixture
async def world(tmp_path: Path, broker: Mosquitto) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path, mqtt_broker=broker.url, mqtt_password=broker.password) as made:
        yield made


@pytest.mark.parametrize("name", TRANSPORTS)
async def test_two_people_talk_over_each_transport(world: ClientWorld, name: str) -> None:
    alice, bob = await world.talking(transport=TRANSPORTS[name])
    await bob.client.send("alice", b"\x00\xff")
    assert await alice.read() == [b"\x00\xff"]


async def test_each_may_use_another_transport(world: ClientWorld) -> None:
    people = [await world.open(name, transport=factory) for name, factory in TRANSPORTS.items()]
    for sender, recipient in zip(people, [*people[1:], people[0]], strict=True):
        await sender.client.send(recipient.user, sender.user)
        assert await recipient.read() == [sender.user]
