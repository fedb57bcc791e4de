"""ejabberd for tests: one domain, accounts named beforehand, a component's port; loopback, unprivileged, no cluster.

Owns: its configuration. `docs/operations.md` tells operators the same.
Does not know about: the relay.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.process import MissingServerError, Server, free_port, program
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET

_CONFIG = """
hosts: ["{domain}"]
loglevel: info
listen:
  - port: {c2s}
    ip: "127.0.0.1"
    module: ejabberd_c2s
  - port: {component_port}
    ip: "127.0.0.1"
    module: ejabberd_service
    hosts:
      "{component}":
        password: "{secret}"
auth_method: internal
auth_password_format: scram
modules:
  mod_carboncopy: {{}}
  mod_mam: {{default: always}}
  mod_offline: {{}}
  mod_roster: {{}}
"""


class Ejabberd(Server):
    """With everything on that stores or copies messages. It takes about two seconds to start."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        """`accounts` are passwords by users' names, made of letters."""
        super().__init__()
        self.component_port = free_port()
        self._libraries = _libraries()
        self._erl = program("erl", "ejabberd")
        self._accounts = accounts
        self._ready = self.directory / "ready"
        ports = {"c2s": self.port, "component_port": self.component_port}
        names = {"domain": DOMAIN, "component": COMPONENT, "secret": SECRET}
        self._config = self.directory / "ejabberd.yml"
        self._config.write_text(_CONFIG.format(**ports, **names))

    def command(self) -> Sequence[str | Path]:
        paths = {
            "ERL_LIBS": self._libraries,
            "ERL_CRASH_DUMP": self.directory / "crash",
            "EJABBERD_CONFIG_PATH": self._config,
            "EJABBERD_LOG_PATH": self.directory / "ejabberd.log",
            "HOME": self.directory,
        }
        made = [
            f'ejabberd_auth:try_register(<<"{user}">>, <<"{DOMAIN}">>, <<"{password}">>)'
            for user, password in self._accounts.items()
        ]
        ready = f'ok = file:write_file("{self._ready}", <<>>).'
        mnesia = "-mnesia", "dir", f'"{self.directory / "database"}"'
        options = *mnesia, "-noinput", "-s", "ejabberd", "-eval", ", ".join([*made, ready])
        return "env", *(f"{name}={value}" for name, value in paths.items()), self._erl, *options

    def launch(self) -> None:
        self._ready.unlink(missing_ok=True)
        super().launch()

    def answers(self) -> bool:
        return self._ready.exists() and super().answers()


def _libraries() -> Path:
    found = next(iter(Path("/usr/lib").glob("*/ejabberd-*/ebin")), None)
    if found is None:
        program("ejabberdctl", "ejabberd", Path("/usr/sbin/ejabberdctl"))  # which says how to install it
        raise MissingServerError("ejabberd is installed where it is not looked for")
    return found.parents[1]
