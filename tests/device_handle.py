"""A device in a process of its own, as a test holds it: told what to do, killed, started again on the same store.

Owns: the process, its store as it lies on disk.
Does not know about: what a device does when it is told (device_process.py), what a test asserts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import e2ee
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from tests.device_process import KEY

_ROOT = Path(e2ee.__file__).parents[1]


class Device:
    """A process. What it writes besides its answers is in `log`, of all its lives."""

    def __init__(self, user: str, name: str, directory: Path) -> None:
        self.user, self.name = user, name
        self.store, self.log, self.device_id = directory / f"{name}.db", directory / f"{name}.log", ""
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.device_process"],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def tell(self, do: str, **fields: object) -> None:
        """Say what to do; `hear` takes the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.name} has ended: {self.log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, do: str, **fields: object) -> dict[str, Any]:
        self.tell(do, **fields)
        return self.hear()

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    @contextmanager
    def opened(self) -> Iterator[Messenger]:
        """What is in the store, after the process has closed it or was killed."""
        with closing(SqliteStore.open(self.store, key=KEY)) as store:
            yield Messenger.open(store)

    def kept(self) -> list[str]:
        """All messages that the history holds; those of a conversation in its order."""
        with self.opened() as messenger:
            history = messenger.history
            return [
                str(entry.data)
                for conversation in history.conversations()
                for entry in history.messages(conversation.peer, limit=10_000)
            ]
