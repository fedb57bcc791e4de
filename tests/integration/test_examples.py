"""The examples do what their docstrings say: run as processes, or held to the contract that they implement."""

import ast
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import socketio
from hypothesis import settings

from e2ee.errors import CorruptStateError, StoreUnavailableError
from e2ee.messenger import Messenger
from e2ee.ports import Store, Table
from e2ee.stores.memory import MemoryStore
from e2ee.wire.identifiers import parse_user_id
from examples.own_store import VaultStore
from examples.own_transport import MAX_LINE, LineTransport, serve_lines
from keyserver.client import KeyServerRefusedError
from tests.cli_processes import PATIENCE_SECONDS, environment, free_port, serving
from tests.client_world import client_world
from tests.contract.relay_world import RelayWorld, within
from tests.contract.store_contract import StoreContract, snapshot
from tests.contract.store_machine import StoreMachine
from tests.contract.transport_contract import Carrier, TransportContract
from transport_adapters import SecureClient
from transport_adapters.base import Cursor, EnvelopeTransport, InsecureUrlError
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.secure_client.client import TransportFactory
from transport_adapters.secure_client.directory import UserUnreachableError
from transport_adapters.secure_client.parts import TokenProvider

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_every_example_says_what_it_shows_and_how_to_run_it(example: Path) -> None:
    docstring = ast.get_docstring(ast.parse(example.read_text()))
    assert docstring is not None
    assert "\nShows: " in docstring
    assert f"python examples/{example.name}" in docstring or "pytest tests/integration/test_examples.py" in docstring


# --- Examples that are programs ------------------------------------------------------------------------------


@contextmanager
def running(directory: Path, example: str, *arguments: str, until: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an example until the block ends; begin when it has printed what matches `until`."""
    log = directory / f"{example}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / example), *arguments],
            stdout=file,
            stderr=file,
            cwd=directory,
            env=environment(directory, PYTHONPATH=str(ROOT)),
            start_new_session=True,
        )
    try:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not re.search(until, log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def interrupted(process: "subprocess.Popen[bytes]") -> int:
    """Press Ctrl-C; return the exit code."""
    os.kill(process.pid, signal.SIGINT)
    return process.wait(PATIENCE_SECONDS)


def login(server: str, path: str, body: dict[str, str] | None = None) -> TokenProvider:
    async def token() -> str:
        async with httpx.AsyncClient(base_url=server) as http:
            return str((await http.post(path, json=body)).json()["token"])

    return token


async def person(server: str, user: str, token: TokenProvider) -> SecureClient:
    return await SecureClient.open(store=MemoryStore(), user=user, server=server, token_provider=token)


async def heard(client: SecureClient) -> tuple[str, str | bytes | None]:
    message = await within(anext(client))
    await message.done()
    return message.sender, message.data


async def test_the_bot_answers_and_does_so_again_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        token = login(server, "/dev/token", {"user": "alice"})
        async with await person(server, "alice", token) as alice:
            for question in ("Are you there?", "Still there?"):
                with running(tmp_path, "bot.py", server, "bot.db", until="bot listens") as bot:
                    await alice.send("bot", b"no text")
                    await alice.send("bot", question)
                    assert await heard(alice) == ("bot", f"You said: {question}")
                    assert interrupted(bot) == 0


def test_a_phone_rings_another_one_which_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as server, running(tmp_path, "phone.py", server, "bob", until="bob waits for calls") as bob:
        shown = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "phone.py"), server, "alice", "bob"],
            env=environment(tmp_path, PYTHONPATH=str(ROOT)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        ).stdout
        assert "bob answers with b'an answer of the media library'" in shown
        heard_by_bob = tmp_path / "phone.py.log"
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while "call with alice: hung up" not in heard_by_bob.read_text():
            assert time.monotonic() < give_up_at, heard_by_bob.read_text()
            time.sleep(0.02)
        assert "alice rings with b'an offer of the media library'" in heard_by_bob.read_text()
        assert interrupted(bob) == 0


def test_two_devices_talk_without_asyncio_and_without_a_network(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "without_asyncio.py")],
        env=environment(tmp_path, PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    ).stdout.splitlines()
    assert shown[:2] == ["alice: 'hello'", "bob: 'hello yourself'"]
    assert re.fullmatch(r"compare over another channel: \d{60}", shown[2])


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    with running(tmp_path, "mount_in_fastapi.py", str(port), "chat.db", until="Uvicorn running on") as process:
        yield f"http://127.0.0.1:{port}"
        interrupted(process)


async def test_the_chat_that_mounts_it_carries_private_messages_and_its_own_events(chat: str) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    reader = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    reader.on("said", said.put_nowait)
    await reader.connect(chat, transports=["websocket"])
    async with (
        await person(chat, "alice", login(chat, "/login/alice")) as alice,
        await person(chat, "bob", login(chat, "/login/bob")) as bob,
    ):
        await alice.send("bob", "only for the two of us")
        assert await heard(bob) == ("alice", "only for the two of us")
        await reader.emit("say", "for everybody")
        assert await within(said.get()) == "for everybody"
    await reader.disconnect()


async def test_the_chat_that_mounts_it_refuses_strangers_and_keeps_its_blocks(chat: str) -> None:
    async def forged() -> str:
        return "not.of.this.chat"

    with pytest.raises(KeyServerRefusedError) as caught:
        await person(chat, "alice", forged)
    assert caught.value.code == "token_invalid"
    with pytest.raises(KeyServerRefusedError):
        await person(chat, "alice", login(chat, "/login/bob"))
    async with (
        await person(chat, "mallory", login(chat, "/login/mallory")) as mallory,
        await person(chat, "bob", login(chat, "/login/bob")),
    ):
        with pytest.raises(UserUnreachableError):
            await mallory.send("bob", "let me in")


# --- The store -----------------------------------------------------------------------------------------------


class ListVault:
    """A vault that forgets when the process ends, and may be full."""

    def __init__(self) -> None:
        self.saved: list[bytes] = []
        self.full = False

    def load(self) -> bytes | None:
        return self.saved[-1] if self.saved else None

    def save(self, state: bytes) -> None:
        if self.full:
            raise OSError
        self.saved.append(state)


class TestVaultStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return VaultStore(ListVault())


class VaultStoreMachine(StoreMachine):
    def open_store(self) -> Store:
        self.vault = ListVault()
        return VaultStore(self.vault)

    def reopen(self) -> Store:
        self.store.close()
        return VaultStore(self.vault)


TestVaultStoreMachine = VaultStoreMachine.TestCase
TestVaultStoreMachine.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_device_in_the_example_store_is_there_again_when_the_vault_is_opened() -> None:
    vault = ListVault()
    made = Messenger.create(VaultStore(vault), parse_user_id("alice"))
    assert Messenger.open(VaultStore(vault)).address == made.address


def test_a_transaction_of_the_example_store_that_cannot_be_saved_changes_nothing() -> None:
    vault = ListVault()
    store = VaultStore(vault)
    with store.write() as tx:
        tx.put(Table.CONTACTS, b"key", b"old")
    before = snapshot(store)
    vault.full = True

    def write() -> None:
        with store.write() as tx:
            tx.put(Table.CONTACTS, b"key", b"new")

    with pytest.raises(StoreUnavailableError):
        write()
    assert snapshot(store) == before == snapshot(VaultStore(vault))


@pytest.mark.parametrize("saved", [b"", b"no json", b"[]", b'{"contacts": 7}', b'{"contacts": [["zz", "", "", 0]]}'])
def test_the_example_store_names_a_vault_that_holds_something_else(saved: bytes) -> None:
    vault = ListVault()
    vault.saved.append(saved)
    with pytest.raises(CorruptStateError):
        VaultStore(vault)


# --- The transport -------------------------------------------------------------------------------------------


class Road:
    """A TCP way to a port, which can be cut."""

    def __init__(self, destination: int) -> None:
        self._destination = destination
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Road"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield self
        server.close()
        await self.drop()

    async def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.gather(*self._pumps)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._destination)
        self._writers |= {writer, onward_writer}
        for source, sink in ((reader, onward_writer), (onward_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        return LineTransport("127.0.0.1", self.port, token=token, cursor=cursor, options=options)


class TestLineTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            async with serve_lines(world.relay, "127.0.0.1", 0) as port, Road(port).open() as road:
                yield road
                await world.relay.close()

        return carried()


def lines(port: int) -> TransportFactory:
    """Make a client's transports lines to a port."""

    def make(server: str, *, token: TokenSource, cursor: CursorSource) -> EnvelopeTransport:
        return LineTransport("127.0.0.1", port, token=token, cursor=cursor)

    return make


async def test_private_messages_pass_over_the_line_transport(tmp_path: Path) -> None:
    async with client_world(tmp_path) as world, serve_lines(world.services.relay, "127.0.0.1", 0) as port:
        alice, bob = await world.talking(transport=lines(port))
        await alice.client.send("bob", "x" * 60_000)
        assert await bob.read() == ["x" * 60_000]


HOSTILE_LINES = {
    "empty": b"",
    "no JSON": b"hello",
    "no frame": b"[]",
    "no fields": b'["hello"]',
    "one too many": b'["hello", {}, 1]',
    "object": b'{"hello": 1}',
    "no base64url": b'["send", {"envelope": "="}]',
    "no UTF-8": b"\xff",
    "huge number": b"9" * 10_000,
    "deep": b"[" * (MAX_LINE - 1),
    "too long": b"x" * (2 * MAX_LINE),
}


@pytest.mark.parametrize("line", HOSTILE_LINES.values(), ids=HOSTILE_LINES)
async def test_a_hostile_line_ends_its_own_connection_and_no_other(tmp_path: Path, line: bytes) -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with client_world(tmp_path) as world, serve_lines(world.services.relay, "127.0.0.1", 0) as port:
        alice = await world.open("alice", transport=lines(port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((line + b"\n") * 20)
        with contextlib.suppress(ConnectionError):
            await within(reader.read())
        writer.close()
        assert world.services.relay.is_live(alice.client.address)
    assert unhandled == []


def test_the_line_transport_refuses_plaintext_beyond_this_machine() -> None:
    async def token() -> str:
        return ""

    async def cursor() -> Cursor:
        return Cursor(0, 0)

    with pytest.raises(InsecureUrlError):
        LineTransport("chat.example", 8441, token=token, cursor=cursor)
