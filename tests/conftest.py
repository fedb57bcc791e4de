"""Settings of the whole test run."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from hypothesis import settings

try:
    import uvloop
except ImportError:  # there is none for this platform
    uvloop = None  # type: ignore[assignment]

# The same examples on every machine and in every run: a red build is red for everybody.
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

ON_UVLOOP = {
    "test_half_open",
    "test_http_hostile",
    "test_http_protocol",
    "test_keyserver_bodies",
    "test_keyserver_smuggling",
    "test_small_frames",
    "test_socketio_guard",
    "test_socketio_hostile_polling",
    "test_socketio_slow_clients",
    "test_thousand_connections",
    "test_websocket_hostile",
}
"""Tests of what transports must bound, whose server runs in the test's own event loop: it is that of `keyserver serve`.

All others run on asyncio's, which a host application may use as well; processes choose by themselves."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if uvloop is None or item.path.stem not in ON_UVLOOP:
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}
