"""A real server process, as `keyserver serve --dev` starts it.

Owns: starting, killing and restarting it, clients of it.
Does not know about: what a test asserts.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from random import Random

import httpx

from e2ee.wire.identifiers import UserId
from keyserver.client import ClientOptions, KeyServerClient
from tests.keyserver_world import Clock, TestDevice, TestUser

ROOT = Path(__file__).parent.parent


class ServerProcess:
    """`keyserver serve --dev` on a port of its own and a database that survives it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.url = ""

    async def start(self) -> None:
        """Start, or start again on the same port and database."""
        arguments = ["serve", "--dev", "--port", str(self._port), "--database", str(self._directory / "server.db")]
        with (self._directory / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "keyserver", *arguments, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("keyserver listening on "), (self._directory / "server.log").read_text()
        self.url = line.split()[-1]
        self._port = int(self.url.rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; return the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            os.kill(self._process.pid, how)
        async with asyncio.timeout(30):
            return await self._process.wait()

    async def aclose(self) -> None:
        """Make sure that nothing is left behind."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def client(self, device: TestDevice, http: httpx.AsyncClient) -> KeyServerClient:
        """The device's client, logging in with the built-in issuer."""

        async def host_token() -> str:
            response = await http.post(f"{self.url}/dev/token", json={"user": device.user.user_id})
            return str(response.json()["token"])

        return KeyServerClient(
            self.url,
            device.address,
            host_token=host_token,
            sign=device.signing.sign,
            next_counter=device.next_counter,
            http=http,
            options=ClientOptions(timeout_seconds=30, first_wait_seconds=0.05),
        )


def real_device(name: str) -> TestDevice:
    """A device of a new user, living in the same time as a real server."""
    clock = Clock()
    clock.now = time.time_ns() // 1_000_000
    return TestUser(UserId(name), Random(name), clock).device()


async def join(client: KeyServerClient, device: TestDevice) -> None:
    await client.register_device(device.signing.public, device.identity.public)
    await client.publish_device_list(device.user.next_list(device))
