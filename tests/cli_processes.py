"""The command line as a person or a script uses it: real processes, a real server, and terminals.

Owns: starting and stopping them, waiting for what they print.
Does not know about: what a test asserts.
"""

import io
import logging
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from e2ee.cli.__main__ import main

PATIENCE_SECONDS = 60.0
PASSPHRASE = "a passphrase of the tests"
E2EE = (sys.executable, "-m", "e2ee.cli")
KEYSERVER = (sys.executable, "-m", "keyserver")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("E2EE_")}
    return kept | {"HOME": str(home), "E2EE_PASSPHRASE": PASSPHRASE, **more}


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def remark(self) -> str:
        """The one line that it printed on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("e2ee: "), self.err
        return lines[0].removeprefix("e2ee: ")


@dataclass(frozen=True)
class Desk:
    """A directory in which commands are run, with what they find in their environment."""

    directory: Path
    server: str = ""

    def run(
        self,
        *arguments: str,
        given: bytes = b"",
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = E2EE,
    ) -> Ended:
        """Run a command to its end. It has no terminal."""
        process = subprocess.run(
            [*command, *arguments],
            input=given,
            capture_output=True,
            cwd=self.directory,
            env=environment(self.directory, **(env or {})),
            start_new_session=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        ended = Ended(process.returncode, process.stdout.decode(), process.stderr.decode())
        assert "Traceback" not in ended.err, ended.err
        return ended

    def call(
        self,
        *arguments: str,
        given: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run `e2ee` within this process: quicker, for what has nothing to do with processes, pipes and signals."""
        out, err = io.StringIO(), io.StringIO()
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, environment(self.directory, **(env or {})), clear=True))
            stack.enter_context(chdir(self.directory))
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(given)
            stdin.seek(0)
            stack.enter_context(mock.patch("sys.stdin", stdin))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            stack.callback(logging.disable, logging.NOTSET)  # the command silences the libraries' logs
            try:
                code = main(arguments)
            except SystemExit as ended:
                assert isinstance(ended.code, int)
                code = ended.code
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return Ended(code, out.getvalue(), err.getvalue())

    def shell(self, script: str, *, env: Mapping[str, str] | None = None) -> Ended:
        """Run a script of bash in which `e2ee` is the command."""
        preamble = f"e2ee() {{ '{sys.executable}' -m e2ee.cli \"$@\"; }}\n"
        return self.run("-c", preamble + script, env=env, command=("bash",))

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a command without a terminal."""
        return subprocess.Popen(
            [*E2EE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env=environment(self.directory, **(env or {})),
            start_new_session=True,
        )

    def init(self, user: str) -> Path:
        """Make a device for a user; return its home."""
        made = self.call("init", user, "--server", self.server, "--dev", "--home", user)
        assert made.code == 0, made.err
        return self.directory / user

    @contextmanager
    def terminal(
        self, *arguments: str, command: Sequence[str] = E2EE, env: Mapping[str, str] | None = None
    ) -> Iterator["Terminal"]:
        """Start a command in a terminal of its own, and see to it that it ends."""
        terminal = Terminal([*command, *arguments], self.directory, environment(self.directory, **(env or {})))
        try:
            yield terminal
        finally:
            terminal.close()


class Terminal:
    """A pseudo-terminal with one process that is its session's leader, as under a terminal emulator."""

    def __init__(self, command: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
        self.seen = ""
        self._status: int | None = None
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:  # pragma: no cover - in the child
            try:
                os.chdir(directory)
                os.execvpe(command[0], list(command), dict(env))
            finally:
                os._exit(127)

    def type(self, text: str) -> None:
        """Type something; end it with a newline to press Enter."""
        os.write(self._descriptor, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._descriptor, b"\x03")

    def end_input(self) -> None:
        """Press Ctrl-D."""
        os.write(self._descriptor, b"\x04")

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Read until what was shown matches a regular expression; return the match."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < give_up_at, f"{pattern!r} did not come: {self.seen!r}"
            assert self._read(1.0), f"{pattern!r} did not come before the end: {self.seen!r}"
        return match

    def end(self) -> int:
        """Wait for the end of the process; return its exit code."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while self._read(1.0):
            assert time.monotonic() < give_up_at, f"it did not end: {self.seen!r}"
        return self._wait()

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()
        os.close(self._descriptor)

    def _wait(self) -> int:
        if self._status is None:
            _, self._status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(self._status)

    def _read(self, seconds: float) -> bool:
        """Read what there is; return whether more may come."""
        readable, _, _ = select.select([self._descriptor], [], [], seconds)
        if not readable:
            return True
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # Linux says so when the process has closed the terminal
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextmanager
def serving(directory: Path, command: Sequence[str] = (*KEYSERVER, "serve", "--dev")) -> Iterator[str]:
    """Run a server on a free port until the end of the block; yield its URL. The command says where it listens."""
    log = directory / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", "0", "--database", str(directory / "server.db")],
            stdout=file,
            stderr=file,
            cwd=directory,
            env=environment(directory),
            start_new_session=True,
        )
    try:
        yield _url_in(log, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url_in(log: Path, process: "subprocess.Popen[bytes]") -> str:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        if match := re.search(r"listening on (http://\S+)\n", log.read_text()):
            port = int(match[1].rpartition(":")[2])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return match[1]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        time.sleep(0.02)
