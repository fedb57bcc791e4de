"""PostgreSQL for tests: a cluster of its own in a temporary directory, a database for each test.

Owns: the cluster, its password, databases.
Does not know about: tables.
"""

import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.servers.process import Server, program, unprivileged

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class PostgreSql(Server):
    """A cluster that does not wait for the disk: what is lost with the machine is no business of a test."""

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)
        self._numbers = itertools.count()
        self._data = self.directory / "data"
        passwords = self.directory / "password"
        passwords.write_text(self._password)
        passwords.chmod(0o644)
        options = "-A", "scram-sha-256", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"
        command = _program("initdb"), "-D", self._data, *options, f"--pwfile={passwords}"
        subprocess.run(unprivileged(command), check=True, capture_output=True, cwd=self.directory)

    def command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "32MB",
            "max_connections": "300",
        }
        return _program("postgres"), "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """End the server and all that it runs at once, as when the machine loses its power."""
        os.kill(self.pid, signal.SIGSTOP)  # or it starts others in place of those that end
        running = self.children()
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().kill()
        while any(Path(f"/proc/{pid}").exists() for pid in running):  # until they have let go of its memory
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stop all of it where it is: connections stay open, and nobody answers. `thaw` lets it go on."""
        for pid in (self.pid, *self.children()):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in (*self.children(), self.pid):
            os.kill(pid, signal.SIGCONT)

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def _program(name: str) -> Path:
    return program(name, "postgresql", *(place / name for place in _PLACES))
