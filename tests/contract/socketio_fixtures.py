"""Fixtures of tests that speak to a site by hand: the settings of its relay, the site, and somebody else on it.

Owns: what such tests share. A test that needs other settings parametrises `settings`.
Does not know about: what is tested.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.relay_world import PATIENT, FrameClient
from tests.contract.socketio_site import Site, opened
from transport_adapters.server.settings import RelaySettings


@pytest.fixture(name="settings")
def patient_settings() -> RelaySettings:
    return PATIENT


@pytest.fixture(name="site")
async def open_site(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[Site]:
    async with opened(tmp_path, settings) as site:
        yield site


@pytest.fixture(name="witness")
async def online_witness(site: Site) -> FrameClient:
    """Somebody else, who must not notice."""
    client = FrameClient(site.world, await site.world.device("witness"))
    await client.online()
    return client
