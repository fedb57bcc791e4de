"""What the story leaves behind, for the checks.

Owns: the facts, and reading them out of the server's database.
Does not know about: which facts are good.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from e2ee.cli.demo.search import tables
from e2ee.cli.demo.tap import Recording


class Said(NamedTuple):
    """A message, as it was sent or as it was shown."""

    sender: str
    text: str


class Shown(NamedTuple):
    """A message as a client was shown it."""

    message_id: str
    said: Said


@final
@dataclass(frozen=True, slots=True)
class Kill:
    """How things stood when a client process was killed."""

    batch: int
    """Messages sent to it around then."""
    shown: int
    """Those of them that it had shown."""
    waiting: int
    """Envelopes that the server held for it."""
    exit_code: int | None
    """As the system tells it; -9 is SIGKILL."""


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the checks look at."""

    sent: Mapping[str, Sequence[Said]]
    """By recipient."""
    shown: Mapping[str, Sequence[Shown]]
    """By recipient, in the order in which they were shown, repetitions included."""
    mishaps: Sequence[str]
    """What clients reported that must not happen: unreadable, failed, skipped, ended."""
    detained: tuple[str, str]
    """A text that was held back, and one of the same sender that overtook it."""
    kill: Kill
    snapshot: Path
    """A copy of the server's database from while bob was away."""
    database: Path
    """The server's database in the end."""
    recordings: Sequence[Recording]
    places: Sequence[Path]
    """All files that anybody wrote: databases, logs, stores, what passed over the network."""
    scratch: Path
    """A directory for copies."""
    imported: frozenset[str]
    """Modules that the server process imported."""
    started_at: float
    """Of the monotonic clock, in seconds."""


def bodies(database: Path) -> list[bytes]:
    """Return the envelopes that a server's database holds, in the order of their arrival."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "SELECT body FROM e2ee_envelopes WHERE body IS NOT NULL ORDER BY seq"
        return [body for (body,) in connection.execute(query)]


def sizes(database: Path) -> list[tuple[str, int]]:
    """Return (table, rows) of a database, without the empty ones."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        counts = [
            (name, connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608 - a name of its schema
            for name in tables(connection)
        ]
    return [(name, count) for name, count in counts if count]


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that is in use through SQLite, so that what lies in its log is in the copy."""
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
