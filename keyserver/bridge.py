"""`keyserver mqtt-bridge`: a bridge to the broker as a process of its own.

Owns: its life, from start to signal. It listens on nothing.
Does not know about: how arguments are written (__main__.py), what a bridge does.
"""

import asyncio
import signal
import sys
from typing import NoReturn

from keyserver.app import build_services
from keyserver.commands import load_settings, prepare
from keyserver.settings import Settings


def run_bridge(database: str | None) -> None:
    """Run until a signal says stop.

    Raises:
        ValueError: the settings are incomplete, or another process serves the database and there is no bus.
    """
    settings = load_settings(**({} if database is None else {"database": database}))
    if settings.mqtt_broker is None:
        raise ValueError("E2EE_MQTT_BROKER: a bridge needs a broker, mqtts://host[:port]")
    prepare(settings)
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    services = build_services(settings, _no_logins)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with services.lifespan(None):
        sys.stdout.write("mqtt-bridge running\n")
        sys.stdout.flush()
        await stop.wait()


async def _no_logins(_token: str) -> NoReturn:
    raise AssertionError("a bridge serves no HTTP")
