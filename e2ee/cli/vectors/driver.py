"""Asking another program: one JSON object per line in each direction.

Owns: the program's life, the lines, what counts as an answer. vectors/README.md documents the protocol.
Does not know about: whether an answer is right.
"""

import json
import queue
import shlex
import subprocess
import threading
from types import TracebackType
from typing import Any, Final, Self, final

from e2ee.cli.vectors.model import JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import LAYERS

ANSWER_SECONDS: Final = 60.0
"""How long one answer may take."""

_MAX_LINE: Final = 16 * 1024 * 1024
_LINES_AHEAD: Final = 4
"""A program that talks on unasked is made to wait, not to fill the memory."""


class DriverError(Exception):
    """The program ended, is silent, or says what is no answer."""


@final
class Driver:
    """Another implementation behind a command line. Use it in a `with` block."""

    def __init__(self, command: str, seconds: float = ANSWER_SECONDS) -> None:
        self._seconds = seconds
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running it is what the user asked for
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
        except (OSError, ValueError, IndexError) as problem:
            raise DriverError(f"the command cannot be run: {problem}") from None
        self._lines: queue.Queue[str] = queue.Queue(_LINES_AHEAD)
        # A thread, because reading a pipe has no timeout of its own.
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its input; if that does not end the program, end the program."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass  # it ended first
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __call__(self, file: VectorFile, operation: Operation, test: JsonObject) -> JsonObject:
        """Put one test to the program; return its answer.

        Raises:
            DriverError: it gave none.
        """
        request = {"file": file.name, "type": operation.name, "tcId": test["tcId"], "input": test["input"]}
        if self._process.stdin is None:
            raise AssertionError("the program was started with a pipe")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise DriverError(f"the program ended before {file.name} test {test['tcId']}") from None
        return _parse(self._answer(file, test))

    def _answer(self, file: VectorFile, test: JsonObject) -> str:
        where = f"{file.name} test {test['tcId']}"
        try:
            line = self._lines.get(timeout=self._seconds)
        except queue.Empty:
            raise DriverError(f"no answer to {where} within {self._seconds:g} seconds") from None
        if not line:
            raise DriverError(f"the program ended without an answer to {where}")
        return line

    def _read(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout:
                while line := self._process.stdout.readline(_MAX_LINE):
                    self._lines.put(line)
        self._lines.put("")


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
