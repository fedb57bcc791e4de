"""SecureClient over each transport by its name, against the standalone server's application."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.client_world import ClientWorld, client_world
from tests.servers.mosquitto import Mosquitto
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET, Prosody
from transport_adapters.secure_client.opening import TRANSPORTS


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto(tls=False) as started:
        yield started


@pytest.fixture(scope="module")
def prosody() -> Iterator[Prosody]:
    with Prosody() as started:
        started.register("phone", "a password")
        yield started


@pytest.fixture
async def world(
    tmp_path: Path, broker: Mosquitto, prosody: Prosody, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClientWorld]:
    for name, value in {
        "E2EE_XMPP_ACCOUNT": f"phone@{DOMAIN}",
        "E2EE_XMPP_PASSWORD": "a password",
        "E2EE_XMPP_RELAY": COMPONENT,
        "E2EE_XMPP_ADDRESS": f"127.0.0.1:{prosody.port}",
    }.items():
        monkeypatch.setenv(name, value)
    async with client_world(
        tmp_path,
        mqtt_broker=broker.url,
        mqtt_password=broker.password,
        xmpp_component=COMPONENT,
        xmpp_secret=SECRET,
        xmpp_domains={DOMAIN},
        xmpp_port=prosody.component_port,
    ) as made:
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
