"""An XMPP server for the demo: Prosody on loopback, with an account for each of the three, without TLS.

Owns: its configuration, its process, the accounts.
Does not know about: who speaks through it.
"""

import asyncio
import secrets
import shutil
import socket
from pathlib import Path
from typing import Final, final

from e2ee.cli.demo.processes import DemoError, answers, end
from e2ee.cli.demo.tap import Tap
from e2ee.cli.failures import WRONG_USE

_START_SECONDS: Final = 10
_DOMAIN: Final = "localhost"
_COMPONENT: Final = "relay.localhost"
_CONFIG: Final = """\
run_as_root = true
daemonize = false
pidfile = "{directory}/prosody.pid"
data_path = "{directory}"
log = {{ debug = "{directory}/log" }}
modules_enabled = {{ "saslauth", "roster", "offline", "presence", "message" }}
modules_disabled = {{ "s2s" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component_port} }}
authentication = "internal_hashed"
storage = "internal"
c2s_require_encryption = false
VirtualHost "localhost"
Component "relay.localhost"
    component_secret = "{secret}"
"""


@final
class XmppServer:
    """One XMPP server. Our server is a component of it, and clients reach it through the tap."""

    title = "an XMPP server (prosody), with an account for each of the three"

    def __init__(self, directory: Path, tap: Tap) -> None:
        self._directory = directory / "xmpp"
        self._tap = tap
        self._secret, self._password = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
        self._component_port = _free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The server's settings."""
        return {
            "E2EE_XMPP_COMPONENT": _COMPONENT,
            "E2EE_XMPP_SECRET": self._secret,
            "E2EE_XMPP_DOMAINS": f'["{_DOMAIN}"]',
            "E2EE_XMPP_PORT": str(self._component_port),
        }

    def environment(self, user: str) -> dict[str, str]:
        """How a client gets there."""
        return {
            "E2EE_XMPP_ACCOUNT": f"{user}@{_DOMAIN}",
            "E2EE_XMPP_PASSWORD": self._password,
            "E2EE_XMPP_RELAY": _COMPONENT,
            "E2EE_XMPP_ADDRESS": f"127.0.0.1:{self._tap.port}",
        }

    @property
    def files(self) -> list[Path]:
        """What it left on disk."""
        return sorted(path for path in self._directory.rglob("*") if path.is_file())

    async def start(self, users: list[str]) -> None:
        """Start it with accounts for these, and wait until it listens."""
        self._directory.mkdir(exist_ok=True)
        self._tap.target = port = _free_port()
        config = self._directory / "prosody.cfg.lua"
        ports = {"port": port, "component_port": self._component_port}
        config.write_text(_CONFIG.format(directory=self._directory.absolute(), secret=self._secret, **ports))
        for user in users:
            made = await asyncio.create_subprocess_exec(
                *(_program("prosodyctl"), "--config", str(config)),
                *("register", user, _DOMAIN, self._password),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            if await made.wait():
                raise DemoError("the XMPP server's accounts could not be made")
        self._process = await asyncio.create_subprocess_exec(
            *(_program("prosody"), "-F", "--config", str(config)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await answers(port):
                    if self._process.returncode is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        raise DemoError(f"the XMPP server did not start: see {self._directory / 'log'}")

    async def kill(self) -> None:
        """End it at once."""
        await end(self._process)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise DemoError(f"{name} is not installed: apt-get install --no-install-recommends prosody", WRONG_USE)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
