"""The demo's processes: one server, and clients that are told what to do.

Owns: starting, talking to and killing them.
Does not know about: the story.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from e2ee.cli.settings import Settings

_START_SECONDS = 30
_STEP_SECONDS = 30


@final
class DemoError(Exception):
    """The demo did not go as it must. The text says where."""


@final
class Server:
    """A real key server and relay in a process of its own, on a free port of loopback."""

    def __init__(self, directory: Path) -> None:
        self.database, self.log = directory / "server.db", directory / "server.log"
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        port = self.url.rpartition(":")[2]
        # -X importtime makes the interpreter itself write down every module that this process ever imports.
        command = ["-X", "importtime", "-m", "keyserver", "serve", "--dev", "--port", port]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--database", str(self.database), stdout=log, stderr=log
            )
        async with asyncio.timeout(_START_SECONDS):
            while not await _answers(int(port)):
                if self._process.returncode is not None:
                    raise DemoError(f"the server ended with exit code {self._process.returncode}: see {self.log}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it in good order."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def imported(self) -> set[str]:
        """Return the names of all modules that the server process imported in its life."""
        lines = self.log.read_text(errors="replace").splitlines()
        return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@final
class Actor:
    """One client process."""

    def __init__(self, name: str, directory: Path, server: Server, passphrase_file: Path) -> None:
        self.name, self.home = name, directory / name
        self._passphrase_file = passphrase_file
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self.events: list[dict[str, Any]] = []
        """Everything it reported, over all its lives."""
        self.home.mkdir()
        Settings(name, server.url, dev=True).save(self.home)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that it was shown, over all its lives, repetitions included."""
        return [event for event in self.events if event["event"] == "message"]

    @property
    def files(self) -> list[Path]:
        """What it left on disk: its store and the captured frames."""
        return sorted(path for path in self.home.iterdir() if path.is_file())

    async def start(self, *, hold_delivery: int = 0) -> None:
        """Start it and wait until it is online."""
        before = self._count("Online")
        arguments = [str(self.home), str(self._passphrase_file), str(hold_delivery)]
        with (self.home / "client.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "e2ee.cli.demo.actor",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._reader = asyncio.create_task(self._read(self._process))
        await self.until(lambda: self._count("Online") > before, "go online")

    async def send(self, user: str, text: str) -> None:
        """Have it send a message."""
        self._tell({"do": "send", "user": user, "text": text})

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until its reports make a condition true."""
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                while not condition():
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise DemoError(f"{self.name} did not {what} within {_STEP_SECONDS} s: see {self.home}") from None

    async def stop(self) -> None:
        """Have it send what is queued, and end."""
        if self._process is None or self._process.returncode is not None:
            return
        before = self._count("stopped")
        self._tell({"do": "stop"})
        await self.until(lambda: self._count("stopped") > before, "stop")
        await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    def _tell(self, command: dict[str, str]) -> None:
        if self._process is None or self._process.stdin is None:
            raise DemoError(f"{self.name} is not running")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            if line.endswith(b"\n"):  # a killed process may leave half a line
                self.events.append(json.loads(line))
                self._heard.set()

    def _count(self, event: str) -> int:
        return sum(1 for each in self.events if each["event"] == event)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer.split(b"\r\n", 1)[0]
