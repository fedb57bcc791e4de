"""Stores on disk for tests: cheap to open, easy to look at from outside."""

import os
import subprocess
import sys
from pathlib import Path

import e2ee
from e2ee.ports import Record, Table
from e2ee.primitives.password import Argon2Cost
from e2ee.stores.sqlite import SqliteStore

CHEAP = Argon2Cost(memory_kib=8, iterations=1, lanes=1)
KEY = bytes(range(32))

_ROOT = Path(e2ee.__file__).parents[1]


def contents(store: SqliteStore) -> dict[Table, list[Record]]:
    """Return everything that the store holds, each record read twice: in a scan and by its key."""
    with store.read() as view:
        everything = {table: list(view.scan(table)) for table in Table}
        for table, records in everything.items():
            assert [view.get(table, record.key) for record in records] == [record.value for record in records]
            assert view.count(table) == len(records)
    return everything


def files(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a directory, by name."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def python(script: str, *arguments: object, launcher: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start a script in another process, with pipes to it."""
    return subprocess.Popen(
        [*launcher, sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
