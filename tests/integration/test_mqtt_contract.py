"""MQTT keeps the contract of all transports, through a real broker with TLS and accounts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.contract.mqtt_site import mqtt_site
from tests.contract.relay_world import RelayWorld
from tests.contract.transport_contract import Carrier, TransportContract
from tests.servers.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as started:
        yield started


class TestMqttTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _broker(self, broker: Mosquitto) -> None:
        self.broker = broker

    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            async with mqtt_site(world, self.broker) as site:
                yield site

        return carried()
