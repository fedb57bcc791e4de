"""Every fenced block of README.md and docs/quickstart.md does what the page says.

The blocks of a document are taken in order, in one empty directory, as a reader would. A table says how each block is
treated; a block that is not in the table fails the test, and so does a line of the table without its block.
Changed are only: the directory of the commands, and the ports, for which free ones stand in.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.cli_processes import PATIENCE_SECONDS, Desk, environment, free_port, serving

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = ("README.md", "docs/quickstart.md")
BIN: Final = Path(sys.executable).parent
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT: Final = re.compile(r"\b84\d\d\b")
_SERVES: Final = re.compile(r"\S*(keyserver serve|uvicorn) .*")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is called in the table."""
        return self.document, self.language, self.text.partition("\n")[0]


def blocks(document: str) -> list[Block]:
    return [Block(document, match[1], match[2]) for match in _FENCE.finditer((ROOT / document).read_text())]


@dataclass
class Reader:
    """Somebody who works through a document, in one directory and one shell."""

    directory: Path
    stack: ExitStack
    printed: str = ""
    """What the block before printed."""
    ports: dict[str, str] = field(default_factory=dict)

    @property
    def desk(self) -> Desk:
        return Desk(self.directory)

    def aside(self, name: str) -> Path:
        """Return a directory beside the reader's own, for a block that stands for itself."""
        directory = self.directory / f"aside-{name}"
        directory.mkdir()
        return directory

    def adapted(self, text: str) -> str:
        """Put free ports in place of the document's, and the directory of this environment's commands."""
        replaced = _PORT.sub(lambda match: self.ports.setdefault(match[0], str(free_port())), text)
        return replaced.replace(".venv/bin/", f"{BIN}/")

    def run(self, script: str) -> str:
        """Run lines in the reader's shell, whose exported variables stay; return what they print."""
        state = self.directory / ".environment"
        before = f"source {state}\n" if state.exists() else ""
        ended = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", f"{before}{script}\nexport -p > {state}"],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environment(),
            start_new_session=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout

    def serve(self, command: str) -> str:
        """Start a server that runs until the end of the document; return its URL."""
        log = self.directory / f"server-{len(self.ports)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                shlex.split(command),
                stdout=file,
                stderr=file,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
            )
        self.stack.callback(process.wait, PATIENCE_SECONDS)
        self.stack.callback(process.terminate)
        port = re.search(r"--port (\d+)", command)
        assert port is not None
        url = f"http://127.0.0.1:{port[1]}"
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            try:
                httpx.get(url)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return url

    def _environment(self) -> dict[str, str]:
        kept = environment(self.directory)
        return kept | {"PATH": f"{BIN}{os.pathsep}{kept['PATH']}"}  # as in an activated environment


# --- how blocks are treated ----------------------------------------------------------------------------------

Treatment = Callable[[Reader, str], None]


def shell(reader: Reader, text: str) -> None:
    """Run it line by line. A line that starts a server goes on in the background."""
    reader.printed = ""
    for line in reader.adapted(text).splitlines():
        if _SERVES.fullmatch(line):
            reader.serve(line.removesuffix("&"))
        else:
            reader.printed += reader.run(line)


def printed(reader: Reader, text: str) -> None:
    """It shows what the block before prints. Times differ."""
    assert _untimed(reader.printed) == _untimed(text)


def make_targets(reader: Reader, text: str) -> None:
    """It calls make: its targets exist. (This test is run by one of them.)"""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert called
    assert targets.issuperset(called)


def saved_as(name: str) -> Treatment:
    """It is a file that the reader saves."""

    def save(reader: Reader, text: str) -> None:
        (reader.directory / name).write_text(reader.adapted(text))

    return save


def two_terminals(reader: Reader, text: str) -> None:
    """Each line is for a terminal of its own, and the two talk."""
    first, second = reader.adapted(text).splitlines()
    env = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with (
        reader.desk.terminal("-c", f"source .environment; {first}", command=("bash",), env=env) as alice,
        reader.desk.terminal("-c", f"source .environment; {second}", command=("bash",), env=env) as bob,
    ):
        alice.wait_for("talking with bob")
        bob.wait_for("talking with alice")
        alice.type("as the document says\n")
        bob.wait_for(r"alice: as the document says\r\n")
        bob.type("so it does\n")
        alice.wait_for(r"bob: so it does\r\n")
        for terminal in (alice, bob):
            terminal.end_input()
            assert terminal.end() == 0


def two_devices(reader: Reader, text: str) -> None:
    """Each line is for a terminal of its own: the code of the first stands in the second, and a person confirms."""
    first, second = reader.adapted(text).splitlines()
    env = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with reader.desk.terminal("-c", f"source .environment; {first}", command=("bash",), env=env) as new:
        code = new.wait_for(r"e2ee link --approve ((?:[A-Z2-7]{4}-){7}[A-Z2-7]{4})")[1]
        assert "\u2588" in new.seen, "and the QR code"
        with reader.desk.terminal(
            "-c", f"source .environment; {second.replace('CODE', code)}", command=("bash",), env=env
        ) as old:
            digits = new.wait_for(r"\n  (\d{6})\r")[1]
            assert old.wait_for(r"\n  (\d{6})\r")[1] == digits
            old.type("yes\n")
            new.type("yes\n")
            assert old.end() == 0
        new.wait_for("this is a device of alice now")
        assert new.end() == 0


def recovered(reader: Reader, text: str) -> None:
    """What the new device prints: contacts still verified, the history readable."""
    shell(reader, text)
    assert "\nbob, verified\n" in reader.printed
    assert reader.printed.endswith("alice to bob: Remember this.\n")


def chat_server(reader: Reader, text: str) -> None:
    """It starts the chat of the block before: two of its users exchange a private message."""
    url = reader.serve(reader.adapted(text).strip())
    assert_users_talk(reader.directory, url, lambda name: httpx.post(f"{url}/login/{name}").json()["token"])
    refused = reader.desk.call("send", "nobody", "hi", "--home", "erin")
    assert refused.code == 1


def client_snippet(reader: Reader, text: str) -> None:
    """It runs inside a coroutine, with the names it does not define, against a server where bob has a device."""
    directory = reader.aside("client")
    url = reader.stack.enter_context(serving(directory))
    desk = Desk(directory, url)
    desk.init("bob")
    script = f"""\
import asyncio, httpx

passphrase = "a passphrase"

async def host_jwt():
    async with httpx.AsyncClient() as http:
        return (await http.post("{url}/dev/token", json={{"user": "alice"}})).json()["token"]

async def main():
{_indented(text.replace("https://chat.example", url))}

asyncio.run(main())
"""
    process = reader.stack.enter_context(
        subprocess.Popen([sys.executable, "-u", "-c", script], cwd=directory, stdout=subprocess.PIPE, text=True)
    )
    reader.stack.callback(process.kill)
    got = desk.call("receive", "--home", "bob", "--count", "1")
    assert got.out.endswith("alice: hello\n")
    assert desk.call("send", "alice", "hello yourself", "--home", "bob").code == 0
    assert process.stdout is not None
    assert process.stdout.readline() == "bob hello yourself\n"


def call_snippet(reader: Reader, text: str) -> None:
    """It is for carol's side of the program before; dave's `on_event` calls its `answer`."""
    script = f"""
import pathlib
exec(pathlib.Path("hello.py").read_text().rpartition("asyncio.run")[0])
from transport_adapters.events import CallRinging

async def main():
    async with await open_client("carol") as carol, await open_client("dave") as dave:
        await dave.online()
        dave._parts.on_event = lambda event: isinstance(event, CallRinging) and asyncio.create_task(answer(event))
{_indented(_indented(text))}

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=reader.directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.stdout == "hung up\n", ended.stderr


def server_snippet(reader: Reader, text: str) -> None:
    """It stands in a host application: with the names that a host has, it makes a server that works."""
    port = free_port()
    directory = reader.aside("host")
    (directory / "host.py").write_text(_HOST.format(port=port, block=text))
    url = reader.serve(f"{sys.executable} -m uvicorn host:asgi --app-dir {directory} --port {port}")
    assert_users_talk(directory, url, lambda name: name)


_HOST: Final = """\
import secrets

import socketio
from fastapi import FastAPI

from keyserver.app import build_services
from keyserver.host_token import HostIdentity
from keyserver.settings import Settings
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach


async def verify_host_token(token):
    return HostIdentity(token)


settings = Settings(origin="http://127.0.0.1:{port}", token_secret=secrets.token_urlsafe(32), database="host.db")
app = FastAPI(lifespan=lambda app: services.lifespan(app))
sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15, ping_timeout=25, max_http_buffer_size=200_000)

{block}
"""


def assert_users_talk(directory: Path, url: str, token: Callable[[str], str]) -> None:
    """Two users of a server's own login get devices, and a message from one reaches the other."""
    desk = Desk(directory, url)
    for user in ("erin", "frank"):
        made = desk.call("init", user, "--server", url, "--token-command", f"echo {token(user)}", "--home", user)
        assert made.code == 0, made.err
    assert desk.call("send", "frank", "in private", "--home", "erin").code == 0
    assert desk.call("receive", "--home", "frank").out.endswith("erin: in private\n")


_README: Final = "README.md"
_QUICKSTART: Final = "docs/quickstart.md"
_BOUNDED = "transport_adapters.server.websocket_protocol:BoundedWebSocket"
TABLE: Final[dict[tuple[str, str, str], Treatment]] = {
    (_README, "console", "make demo"): make_targets,
    (_README, "python", "from transport_adapters import SecureClient"): client_snippet,
    (
        _README,
        "python",
        "services = build_services(settings, verify_host_token)      # keyserver.app",
    ): server_snippet,
    (_README, "console", ".venv/bin/keyserver serve --dev --port 8440 --database keyserver.db &"): shell,
    (
        _QUICKSTART,
        "text",
        "make check                      makes .venv and checks that everything is in order",
    ): make_targets,
    (_QUICKSTART, "sh", "keyserver serve --dev --port 8440 --database server.db"): shell,
    (_QUICKSTART, "sh", "export E2EE_PASSPHRASE='correct horse battery staple'"): shell,
    (_QUICKSTART, "sh", "e2ee send bob 'Only for the two of us.' --home alice"): shell,
    (_QUICKSTART, "text", "sent to bob"): printed,
    (_QUICKSTART, "sh", "e2ee status --home bob"): shell,
    (_QUICKSTART, "text", "e2ee chat bob --home alice"): two_terminals,
    (_QUICKSTART, "sh", "e2ee verify alice --qr bob.png --home bob"): shell,
    (_QUICKSTART, "text", "e2ee link alice --server http://127.0.0.1:8440 --dev --home laptop"): two_devices,
    (_QUICKSTART, "sh", "e2ee contacts --home laptop"): shell,
    (_QUICKSTART, "text", "bob, verified"): printed,
    (_QUICKSTART, "sh", "e2ee history --keep forever --home alice"): shell,
    (
        _QUICKSTART,
        "sh",
        "e2ee recover alice --server http://127.0.0.1:8440 --dev --home again --file alice.export --code-file code",
    ): recovered,
    (_QUICKSTART, "python", "import asyncio"): saved_as("hello.py"),
    (_QUICKSTART, "sh", "python hello.py"): shell,
    (_QUICKSTART, "text", "carol lunch hello"): printed,
    (
        _QUICKSTART,
        "text",
        'await carol.presence.announce("online")       # "away", "offline"; said again after every reconnect',
    ): call_snippet,
    (_QUICKSTART, "python", "import secrets"): saved_as("chat.py"),
    (_QUICKSTART, "text", f"uvicorn chat:asgi --port 8442 --ws {_BOUNDED}"): chat_server,
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with ExitStack() as stack:
        yield Reader(tmp_path, stack)


def test_every_block_is_in_the_table_once() -> None:
    found = [block.key for document in DOCUMENTS for block in blocks(document)]

    assert sorted(found) == sorted(TABLE)


def test_no_fence_escapes_the_search() -> None:
    for document in DOCUMENTS:
        fences = re.findall(r"^\s*(?:```|~~~)", (ROOT / document).read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(document))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_document_works_as_written(document: str, reader: Reader) -> None:
    for block in blocks(document):
        TABLE[block.key](reader, block.text)


def _indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


def _untimed(text: str) -> str:
    return re.sub(r"^\d\d:\d\d ", "--:-- ", text.strip(), flags=re.MULTILINE)
