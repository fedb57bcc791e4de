"""A server of the tests as a process: unprivileged, on loopback, gone when the tests are.

Owns: which user it runs as, that it dies with us, waiting until it listens.
Does not know about: any particular server.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 60
_NOBODY = "nobody"
HOW_TO_INSTALL = "install it with scripts/servers, or: apt-get install --no-install-recommends {package}"


class MissingServerError(Exception):
    """A program that a test needs is not installed. Never a reason to skip the test."""


def program(name: str, package: str, *places: Path) -> Path:
    """Find a program.

    Raises:
        MissingServerError: it is not installed; the text says how to install it.
    """
    found = next((place for place in places if place.exists()), None) or shutil.which(name)
    if found is None:
        raise MissingServerError(f"{name} is not installed: {HOW_TO_INSTALL.format(package=package)}")
    return Path(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unprivileged(command: Sequence[str | Path]) -> list[str]:
    """Return a command that runs as nobody if we are root, and is told when we die."""
    dies_with_us = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        dies_with_us += ["--reuid", _NOBODY, "--regid", "nogroup", "--clear-groups"]
    return [*dies_with_us, "--", *map(str, command)]


def private_directory() -> Path:
    """Make a temporary directory that the server's user owns; the caller removes it."""
    directory = Path(tempfile.mkdtemp(prefix="e2ee-servers-"))
    if os.geteuid() == 0:
        shutil.chown(directory, _NOBODY)
    return directory


class Server:
    """One server process. `start` again after `kill`: same port, same directory."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.directory = private_directory()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it. Call it from a thread that lives as long as the server: the server ends with the thread."""
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(
                unprivileged(self.command()), stdout=output, stderr=output, cwd=self.directory
            )

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._process is not None
        log, deadline = self.directory / "log", time.monotonic() + PATIENCE_SECONDS
        while not self.answers():
            assert self._process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Return the processes that it has started."""
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.signal(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)
