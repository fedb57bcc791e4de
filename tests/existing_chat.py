"""The chat of examples/existing_chat as a process, and its people.

Owns: the server's life, its secrets, clients that are logged in.
Does not know about: what a test asserts.
"""

import asyncio
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from examples.existing_chat.after.private_client import PrivateClient
from examples.existing_chat.client import ChatClient
from tests.cli_processes import PATIENCE_SECONDS, environment, free_port
from tests.contract.relay_world import within
from transport_adapters.secure_client.parts import OnEvent

ROOT = Path(__file__).parents[1]
PASSWORD = "a password of the tests"
PLAIN = "everybody with the database reads this sentence"
PRIVATE = "only the two of us read this other sentence"


class Chat:
    """A server of one of the two kinds, on one port and one database for its whole life."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.database, self.log = directory, directory / "chat.db", directory / "chat.log"
        self.push = directory / "chat.push"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._secrets = {
            "CHAT_JWT_SECRET": secrets.token_urlsafe(32),
            "E2EE_TOKEN_SECRET": secrets.token_urlsafe(32),
            "E2EE_ORIGIN": self.url,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, kind: str) -> None:
        """Start `before` or `after`, and wait until it listens."""
        command = [sys.executable, "-m", f"examples.existing_chat.{kind}", "--port", str(self._port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it only forks
                [*command, "--database", str(self.database)],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(self.directory, PYTHONPATH=str(ROOT), **self._secrets),
                start_new_session=True,
            )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._listens():
                assert self._process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def restart(self, kind: str) -> None:
        """Kill it, and start one on the same database."""
        self.kill()
        await self.start(kind)

    @property
    def files(self) -> list[Path]:
        """Everything that the server wrote."""
        return [self.database, *self.directory.glob("chat.db-*"), *self.directory.glob("chat.push"), self.log]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@asynccontextmanager
async def running(directory: Path, kind: str) -> AsyncIterator[Chat]:
    """Run a chat until the block ends."""
    chat = Chat(directory)
    try:
        await chat.start(kind)
        yield chat
    finally:
        chat.kill()


async def person(chat: Chat, name: str, *, new: bool = True) -> ChatClient:
    """Return the chat's own client, logged in and not connected."""
    client = ChatClient(chat.url, name)
    if new:
        await client.register(PASSWORD)
    await client.log_in(PASSWORD)
    return client


async def device(chat: Chat, client: ChatClient, on_event: OnEvent | None = None) -> PrivateClient:
    """Return the client of private conversations beside it, with a directory that stays."""
    directory = chat.directory / client.name
    return await PrivateClient.open(client, directory, client.name.encode().ljust(32, b"."), on_event)


async def heard(client: ChatClient) -> tuple[str, dict[str, Any]]:
    """Return the next event."""
    return await within(client.events.get())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - of another process, which tells nobody
            await asyncio.sleep(0.02)


async def alice_and_bob(chat: Chat, stack: AsyncExitStack, *, new: bool = True) -> tuple[ChatClient, ChatClient]:
    """Return both, logged in; the stack closes them."""
    alice, bob = [await person(chat, name, new=new) for name in ("alice", "bob")]
    for client in (alice, bob):
        stack.push_async_callback(client.aclose)
    return alice, bob


async def someone(chat: Chat, stack: AsyncExitStack, name: str) -> ChatClient:
    """Return somebody new, logged in; the stack closes the client."""
    client = await person(chat, name)
    stack.push_async_callback(client.aclose)
    return client


async def private_pair(
    chat: Chat, stack: AsyncExitStack, alice: ChatClient, bob: ChatClient
) -> tuple[PrivateClient, PrivateClient]:
    """Give both a device; the stack closes it."""
    pair = await device(chat, alice), await device(chat, bob)
    for each in pair:
        stack.push_async_callback(each.aclose)
    return pair


def notifications(chat: Chat) -> list[dict[str, Any]]:
    """Return what the push service was given."""
    return [json.loads(line) for line in chat.push.read_text().splitlines()] if chat.push.exists() else []
