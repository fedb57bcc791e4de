"""A relay for each test, with two devices. A test that parametrises `settings` gets a relay with those."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, RelayWorld, relay_world
from transport_adapters.server.settings import RelaySettings


@pytest.fixture
def settings() -> RelaySettings:
    return PATIENT


@pytest.fixture
async def world(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path, settings) as world:
        yield world


@pytest.fixture
async def alice(world: RelayWorld) -> DeviceAddress:
    return await world.device("alice")


@pytest.fixture
async def bob(world: RelayWorld) -> DeviceAddress:
    return await world.device("bob")
