"""Asking another program: one JSON object per line in each direction.

Owns: the program's life, the lines, what counts as an answer. vectors/README.md documents the protocol.
Does not know about: whether an answer is right.
"""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self, final

from e2ee.cli.vectors.model import JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import LAYERS

ANSWER_SECONDS: Final = 60.0
"""How long one answer may take."""

_MAX_LINE: Final = 16 * 1024 * 1024
_FAREWELL_SECONDS: Final = 5.0
"""How long the program may take to end after its input has ended."""


class DriverError(Exception):
    """The program ended, is silent, or says what is no answer."""


@final
class Driver:
    """Another implementation behind a command line. Use it in a `with` block."""

    def __init__(self, command: str, seconds: float = ANSWER_SECONDS) -> None:
        self._seconds = seconds
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running it is what the user asked for
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as problem:
            raise DriverError(f"the command cannot be run: {problem}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its input; if that does not end the program, end the program."""
        if error is not None:
            self._kill()
        with self._timer(_FAREWELL_SECONDS):
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # it may have ended first
                    if pipe is not None:
                        pipe.close()
            self._process.wait()

    def __call__(self, file: VectorFile, operation: Operation, test: JsonObject) -> JsonObject:
        """Put one test to the program; return its answer.

        Raises:
            DriverError: it gave none.
        """
        where = f"{file.name} test {test['tcId']}"
        request = {"file": file.name, "type": operation.name, "tcId": test["tcId"], "input": test["input"]}
        with self._timer(self._seconds):
            line = self._ask(json.dumps(request) + "\n")
        if not line:
            raise DriverError(f"no answer to {where} within {self._seconds:g} seconds, or the program ended")
        return _parse(line)

    def _ask(self, line: str) -> str:
        """Return the program's next line, or an empty string if it is gone."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the program was started with pipes")
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            return ""
        return self._process.stdout.readline(_MAX_LINE)

    @contextmanager
    def _timer(self, seconds: float) -> Iterator[None]:
        """End the program if the block takes too long: neither reading nor writing a pipe has a timeout of its own."""
        timer = threading.Timer(seconds, self._kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _kill(self) -> None:
        # All of its session: a shell's children hold the pipes open.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _parse(line: str) -> JsonObject:
    try:
        answer: Any = json.loads(line)
    except ValueError:
        raise DriverError(f"not a line of JSON: {line[:80]!r}") from None
    match answer:
        case {"result": "valid", "output": dict(), **rest} if not rest:
            return dict(answer)
        case {"result": "invalid", "fails_at": layer, **rest} if not rest and layer in LAYERS:
            return dict(answer)
        case {"result": "error", "problem": str(), **rest} if not rest:
            return dict(answer)
        case {"result": "unsupported", **rest} if not rest:
            return dict(answer)
        case _:
            raise DriverError(f"not an answer: {line[:80]!r}")
