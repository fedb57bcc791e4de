"""Settings of the whole test run."""

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module, util

import pytest
from hypothesis import settings

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
    there_is_one = util.find_spec("uvloop") is not None  # not for every platform
    if item.path.stem in ON_UVLOOP and there_is_one:
        return {"uvloop": import_module("uvloop").new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
