"""One real server in a process of its own, which can be killed and started again on the same database.

Owns: its life, its secrets, tokens of its host application.
Does not know about: what a test does with it.
"""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import e2ee
from tests.keyserver_world import HOST_SECRET, TOKEN_SECRET, host_token

_ROOT = Path(e2ee.__file__).parents[1]
_START_SECONDS = 30


class ServerProcess:
    """`keyserver serve` on a free port of loopback."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` are environment variables without their E2EE_."""
        self.database, self.log = directory / "server.db", directory / "server.log"
        self._settings = {f"E2EE_{name.upper()}": value for name, value in settings.items()}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.port = self._port
        self._is_tls = "tls_certificate" in settings
        self.url = f"{'https' if self._is_tls else 'http'}://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._forgotten: set[str] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def forget(self, *names: str) -> None:
        """Leave variables (without their E2EE_) out of the environment."""
        self._forgotten |= {f"E2EE_{name}" for name in names}

    def arguments(self) -> list[str]:
        return ["serve", "--port", str(self._port)]

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "E2EE_ORIGIN": self.url,
            "E2EE_TOKEN_SECRET": TOKEN_SECRET,
            "E2EE_HOST_JWT_ALGORITHM": "HS256",
            "E2EE_HOST_JWT_SECRET": HOST_SECRET,
            "E2EE_DATABASE": str(self.database),
            **self._settings,
        }
        environment = {name: value for name, value in environment.items() if name not in self._forgotten}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "keyserver", *self.arguments()]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM: drain, then end. Return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def logged(self, text: str) -> None:
        """Wait until the log says so."""
        async with asyncio.timeout(_START_SECONDS):
            while text not in self.log.read_text():  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def token(user: str) -> str:
        """A token of the host application, as its login gives out."""
        return host_token(user, time.time_ns() // 1_000_000)

    def answers(self) -> bool:
        try:
            # The certificate is a test's own, and what is asked here holds nothing.
            context = ssl._create_unverified_context() if self._is_tls else None
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class BridgeProcess(ServerProcess):
    """`keyserver mqtt-bridge` beside a server. Settings are the server's."""

    def __init__(self, directory: Path, **settings: str) -> None:
        super().__init__(directory, **settings)
        self.log = directory / "bridge.log"

    def arguments(self) -> list[str]:
        return ["mqtt-bridge"]

    def start(self) -> None:
        """Start it and wait until it says that it runs."""
        self.log.write_bytes(b"")
        super().start()

    def answers(self) -> bool:
        return "mqtt-bridge running" in self.log.read_text()
