"""An MQTT broker for the demo: Mosquitto on loopback, with accounts and without TLS.

Owns: its configuration, its process, the bridge's account.
Does not know about: who speaks through it.
"""

import asyncio
import getpass
import secrets
import shutil
import socket
from pathlib import Path
from typing import Final, final

from e2ee.cli.demo.processes import DemoError, answers, end
from e2ee.cli.demo.tap import Tap
from e2ee.cli.failures import WRONG_USE

_START_SECONDS: Final = 10
_USER: Final = "demo"
_CONFIG: Final = """\
listener {port} 127.0.0.1
plugin {plugin}
plugin_opt_config_file {directory}/dynamic-security.json
allow_anonymous false
persistence false
retain_available false
set_tcp_nodelay true
max_packet_size 163840
log_type all
log_dest stdout
user {user}
"""


@final
class Broker:
    """One broker. The server speaks to it directly, clients through the tap."""

    title = "an MQTT broker (mosquitto), with an account for the server"

    def __init__(self, directory: Path, tap: Tap) -> None:
        self._directory = directory / "broker"
        self._tap = tap
        self._password = secrets.token_urlsafe(32)
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The server's settings."""
        return {
            "E2EE_MQTT_BROKER": f"mqtt://127.0.0.1:{self._port}",
            "E2EE_MQTT_PUBLIC_URL": f"mqtt://127.0.0.1:{self._tap.port}",
            "E2EE_MQTT_USER": _USER,
            "E2EE_MQTT_PASSWORD": self._password,
        }

    def environment(self, _user: str) -> dict[str, str]:
        """How a client gets there: the server tells it."""
        return {}

    @property
    def files(self) -> list[Path]:
        """What it left on disk."""
        return sorted(path for path in self._directory.glob("*") if path.is_file())

    async def start(self, _users: list[str]) -> None:
        """Start it and wait until it listens."""
        self._directory.mkdir(exist_ok=True)
        accounts = self._directory / "dynamic-security.json"
        init = await asyncio.create_subprocess_exec(
            _program("mosquitto_ctrl"),
            *("dynsec", "init", str(accounts), _USER, self._password),
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await init.wait():
            raise DemoError("the broker's accounts could not be made: see the messages above")
        self._port = self._tap.target = _free_port()
        config = self._directory / "mosquitto.conf"
        places = {"directory": self._directory.absolute(), "plugin": _plugin()}
        config.write_text(_CONFIG.format(port=self._port, user=getpass.getuser(), **places))
        with (self._directory / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                _program("mosquitto"), "-c", str(config), stdout=log, stderr=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await answers(self._port):
                    if self._process.returncode is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        raise DemoError(f"the broker did not start: see {self._directory / 'log'}")

    async def kill(self) -> None:
        """End it at once."""
        await end(self._process)


def _program(name: str) -> str:
    """Find a program of the package, which Debian puts where not everybody looks."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise DemoError(f"{name} is not installed: apt-get install --no-install-recommends mosquitto", WRONG_USE)
    return found


def _plugin() -> Path:
    for pattern in ("lib/*/mosquitto_dynamic_security.so", "lib/mosquitto_dynamic_security.so"):
        for root in (Path("/usr"), Path("/usr/local"), Path("/opt/homebrew")):
            for found in root.glob(pattern):
                return found
    raise DemoError("mosquitto is installed without its dynamic-security plugin", WRONG_USE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
