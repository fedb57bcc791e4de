"""The demo's processes: one server, and clients that are told what to do.

Owns: starting, talking to, freezing and killing them; the login of the chat that they stand for.
Does not know about: the story.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

from e2ee.cli.demo.tap import Tap
from e2ee.cli.failures import REFUSED, WRONG_USE
from e2ee.cli.settings import Settings

_STEP_SECONDS: Final = 60
_LOGIN_SECONDS: Final = 30 * 24 * 3600
_LISTENING: Final = "keyserver listening on "


@final
class DemoError(Exception):
    """The demo did not go as it must. The text says where."""

    def __init__(self, text: str, exit_code: int = REFUSED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@final
class Server:
    """A real key server and relay in a process of its own. Clients reach it through the tap."""

    def __init__(self, directory: Path, tap: Tap, settings: Mapping[str, str]) -> None:
        """`settings` are environment variables besides, read when it is started."""
        self._settings = settings
        self.database, self.log = directory / "server.db", directory / "server.log"
        self._tap = tap
        self._login_secret = secrets.token_urlsafe(32)
        self._token_secret = secrets.token_urlsafe(32)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """How clients reach it."""
        return f"http://127.0.0.1:{self._tap.port}"

    def host_token(self, user: str) -> str:
        """Return what the chat's login would give this user: a JWT, HS256."""
        now = int(time.time())
        parts = {"alg": "HS256", "typ": "JWT"}, {"sub": user, "iat": now, "exp": now + _LOGIN_SECONDS}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = hmac.new(self._login_secret.encode(), signed, hashlib.sha256).digest()
        return (signed + b"." + _base64url(signature)).decode()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        # -X importtime makes the interpreter itself write down every module that this process ever imports.
        command = ["-X", "importtime", "-m", "keyserver", "serve", "--port", "0", "--database", str(self.database)]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=log, stderr=log, env=self._environment(), start_new_session=True
            )
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                while not await self._answers(begin):
                    if self._process.returncode is not None:
                        raise self._failure(begin)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise DemoError(f"the server did not answer within {_STEP_SECONDS} s: see {self.log}") from None

    async def stop(self) -> None:
        """End it in good order."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        await end(self._process)

    def imported(self) -> set[str]:
        """Return the names of all modules that the server process imported in its life."""
        lines = self.log.read_text(errors="replace").splitlines()
        return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}

    def _environment(self) -> dict[str, str]:
        return hermetic_environment() | {
            "E2EE_ORIGIN": self.url,
            "E2EE_TOKEN_SECRET": self._token_secret,
            "E2EE_HOST_JWT_ALGORITHM": "HS256",
            "E2EE_HOST_JWT_SECRET": self._login_secret,
            **self._settings,
        }

    async def _answers(self, begin: int) -> bool:
        log = self.log.read_bytes()[begin:].decode(errors="replace")
        said = [line for line in log.splitlines(keepends=True) if line.startswith(_LISTENING) and line.endswith("\n")]
        if not said:
            return False
        self._tap.target = int(said[-1].rpartition(":")[2])
        return await _is_healthy(self._tap.target)

    def _failure(self, begin: int) -> DemoError:
        log = self.log.read_bytes()[begin:].decode(errors="replace")
        said = [line for line in log.splitlines() if line.strip() and not line.startswith("import time:")]
        if any("install 'e2ee-layer" in line for line in said):
            return DemoError(f"the server lacks packages: {said[-1]}", WRONG_USE)
        return DemoError(f"the server did not start: {said[-1] if said else 'no reason given'}. See {self.log}")


@final
class Actor:
    """One client process."""

    def __init__(
        self,
        name: str,
        transport: str,
        directory: Path,
        server: Server,
        passphrase_file: Path,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` are variables that its transport reads."""
        self.name, self.home = name, directory / name
        self._environment = environment
        self._transport = transport
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self.events: list[dict[str, Any]] = []
        """Everything it reported, over all its lives."""
        token_file = self.home / "token"
        settings = Settings(
            name, server.url, token_file=str(token_file), passphrase_file=str(passphrase_file.absolute())
        )
        settings.save(self.home)
        token_file.write_text(server.host_token(name))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that it was shown, over all its lives, repetitions included."""
        return [event for event in self.events if event["event"] == "message"]

    @property
    def files(self) -> list[Path]:
        """What it left on disk."""
        return sorted(path for path in self.home.iterdir() if path.is_file() and path.suffix != ".lock")

    def count(self, event: str) -> int:
        """Return how often it reported an event."""
        return sum(1 for each in self.events if each["event"] == event)

    async def start(self, *, hold_from: str = "") -> None:
        """Start it and wait until it is online. `hold_from` names a sender of whom one envelope comes late."""
        before = self.count("Online")
        with (self.home / "client.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "e2ee.cli.demo.actor",
                str(self.home),
                self._transport,
                hold_from,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=hermetic_environment() | dict(self._environment),
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read(self._process))
        await self.until(lambda: self.count("Online") > before, "go online")

    def send(self, user: str, text: str) -> None:
        """Have it send a message."""
        self._tell({"do": "send", "user": user, "text": text})

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until its reports make a condition true."""
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                while not condition():
                    if self._reader is None or self._reader.done():
                        raise DemoError(f"{self.name} ended before it could {what}: see {self.home / 'client.log'}")
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise DemoError(f"{self.name} did not {what} within {_STEP_SECONDS} s: see {self.home}") from None

    async def stop(self) -> None:
        """Have it send what is queued, and end."""
        if self._process is None or self._process.returncode is not None:
            return
        before = self.count("stopped")
        self._tell({"do": "stop"})
        await self.until(lambda: self.count("stopped") > before, "stop")
        await self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: whatever it was doing, it stands still."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> int | None:
        """SIGKILL: no chance to tidy up. Return how the process ended, as the system tells it."""
        await end(self._process)
        if self._reader is not None:
            await self._reader
        return self._process.returncode if self._process is not None else None

    def _tell(self, command: dict[str, str]) -> None:
        if self._process is None or self._process.stdin is None:
            raise DemoError(f"{self.name} is not running")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            async for line in process.stdout:
                if line.endswith(b"\n"):  # a killed process may leave half a line
                    self.events.append(json.loads(line))
                    self._heard.set()
        self._heard.set()


def hermetic_environment() -> dict[str, str]:
    """Return our environment without the settings of other servers and devices."""
    return {name: value for name, value in os.environ.items() if not name.startswith("E2EE_")}


async def end(process: asyncio.subprocess.Process | None) -> None:
    """End a process at once, if there is one."""
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


async def answers(port: int) -> bool:
    """Say whether something listens on a port of loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _is_healthy(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer.split(b"\r\n", 1)[0]


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
