"""Mosquitto for tests, configured as docs/operations.md says.

Owns: filling the configuration of the document in, the bridge's account, a certificate.
Does not know about: devices and their accounts.
"""

import re
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.certificates import make_certificate
from tests.servers.process import MissingServerError, Server, program, unprivileged

_DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
_PACKAGE = "mosquitto"
_LOOPBACK = "127.0.0.1"


class Mosquitto(Server):
    """The document's configuration on loopback. `extra` are lines of configuration besides."""

    username = "e2ee-bridge"

    def __init__(self, *, tls: bool = True, extra: Sequence[str] = ()) -> None:
        super().__init__()
        self.tls = tls
        self.password = secrets.token_hex(16)
        self.accounts = self.directory / "dynamic-security.json"
        (written,) = re.findall(r"```conf\n(listener .*?)```", _DOCUMENT.read_text(), re.S)
        replaced = {
            "listener": f"{self.port} {_LOOPBACK}",
            "certfile": str(self.directory / "broker.pem"),
            "keyfile": str(self.directory / "broker.key"),
            "plugin": str(_plugin()),
            "plugin_opt_config_file": str(self.accounts),
        }
        lines = []
        for line in written.splitlines():
            name = line.partition(" ")[0]
            if tls or name not in ("certfile", "keyfile"):
                lines.append(f"{name} {replaced[name]}" if name in replaced else line)
        self._config = self.directory / "mosquitto.conf"
        self._config.write_text("\n".join([*lines, *(each.format(directory=self.directory) for each in extra), ""]))
        for each in (*make_certificate(self.directory, "broker")[:2], self._config):
            shutil.chown(each, self.directory.owner())
        init = program("mosquitto_ctrl", _PACKAGE), "dynsec", "init", self.accounts, self.username, self.password
        subprocess.run(unprivileged(init), check=True, capture_output=True)

    @property
    def settings(self) -> dict[str, str]:
        """The key server's settings to bridge to it."""
        return {"mqtt_broker": self.url, "mqtt_password": self.password}

    def command(self) -> Sequence[str | Path]:
        return program("mosquitto", _PACKAGE, Path("/usr/sbin/mosquitto")), "-c", self._config

    @property
    def url(self) -> str:
        return self.url_of(self.port)

    def url_of(self, port: int) -> str:
        """The broker's URL by another port, as through a proxy."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{_LOOPBACK}:{port}"

    @property
    def ca_file(self) -> Path:
        return self.directory / "broker.pem"

    def trust(self) -> ssl.SSLContext | None:
        """What a client needs to know the broker by."""
        return ssl.create_default_context(cafile=str(self.ca_file)) if self.tls else None


def _plugin() -> Path:
    found = next(iter(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")), None)
    if found is None:
        program("mosquitto", _PACKAGE, Path("/usr/sbin/mosquitto"))  # which says how to install it, if it is missing
        raise MissingServerError("mosquitto is installed without its dynamic-security plugin")
    return found
