"""Prosody for tests: one domain, accounts made by the test, a component's port; loopback, unprivileged.

Owns: its configuration. `docs/operations.md` tells operators the same.
Does not know about: the relay.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import Server, free_port, program, unprivileged

DOMAIN = "localhost"
COMPONENT = "relay.localhost"
SECRET = "the secret of the component of the tests"
_CONFIG = """
pidfile = "{directory}/prosody.pid"
data_path = "{directory}/data"
log = {{ debug = "{directory}/prosody.log" }}
daemonize = false
plugin_paths = {{}}
modules_enabled = {{ "saslauth", "tls", "roster", "offline", "carbons", "presence", "message" }}
modules_disabled = {{ "s2s" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
legacy_ssl_ports = {{ }}
component_ports = {{ {component} }}
component_interfaces = {{ "127.0.0.1" }}
authentication = "internal_hashed"
storage = "internal"
c2s_require_encryption = {tls}
allow_unencrypted_plain_auth = false
{certificate}
VirtualHost "localhost"
Component "relay.localhost"
    component_secret = "{secret}"
"""


class Prosody(Server):
    """With `certificate` and `key` clients have to use TLS."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        super().__init__()
        self.component_port = free_port()
        self._program = program("prosody", "prosody")
        ssl = ""
        if certificate is not None and key is not None:
            for file in (certificate, key):
                copied = Path(shutil.copy(file, self.directory))
                copied.chmod(0o644)
            names = f'"{self.directory / certificate.name}", key = "{self.directory / key.name}"'
            ssl = f"ssl = {{ certificate = {names} }}"
        config = _CONFIG.format(
            directory=self.directory,
            c2s=self.port,
            component=self.component_port,
            secret=SECRET,
            tls="true" if ssl else "false",
            certificate=ssl,
        )
        self._config = self.directory / "prosody.cfg.lua"
        self._config.write_text(config)

    @property
    def settings(self) -> dict[str, str]:
        """The key server's settings to be its component."""
        return {
            "xmpp_component": COMPONENT,
            "xmpp_secret": SECRET,
            "xmpp_domains": f'["{DOMAIN}"]',
            "xmpp_port": str(self.component_port),
        }

    def command(self) -> Sequence[str | Path]:
        return self._program, "-F", "--config", self._config

    def register(self, user: str, password: str) -> None:
        """Make an account."""
        control = program("prosodyctl", "prosody")
        command = unprivileged([control, "--config", self._config, "register", user, DOMAIN, password])
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory)
