"""Looks for plaintext where none may be.

Owns: the spellings in which a plaintext could hide, the search through files and databases.
Does not know about: whose files they are.
"""

import base64
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

_MIN_BASE64 = 12
"""Shorter base64 cores would be found by chance."""

_SQLITE = b"SQLite format 3\0"


class Finding(NamedTuple):
    """A place that holds a plaintext, and how it is spelled there."""

    place: str
    spelling: str
    plaintext: str


def spellings(plaintext: str) -> Iterator[tuple[str, bytes]]:
    """Return (name, bytes) of each spelling: raw, hex, UTF-16, and base64 at all three alignments."""
    raw = plaintext.encode()
    yield "raw", raw
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "UTF-16LE", plaintext.encode("utf-16-le")
    yield "UTF-16BE", plaintext.encode("utf-16-be")
    for offset in range(3):
        # The characters that the bytes before and after do not touch.
        core = base64.b64encode(bytes(offset) + raw)[(0, 2, 3)[offset] :].rstrip(b"=")[:-1]
        if len(core) >= _MIN_BASE64:
            yield f"base64+{offset}", core
            yield f"base64url+{offset}", core.replace(b"+", b"-").replace(b"/", b"_")


def search(places: Sequence[Path], plaintexts: Sequence[str]) -> list[Finding]:
    """Search files as they lie on disk, and databases value by value as well, because pages cut values."""
    needles = [(plaintext, name, needle) for plaintext in plaintexts for name, needle in spellings(plaintext)]
    findings = []
    for place in places:
        for where, data in _contents(place):
            findings += [Finding(where, name, text) for text, name, needle in needles if needle in data]
    return findings


def _contents(place: Path) -> Iterator[tuple[str, bytes]]:
    yield place.name, place.read_bytes()
    if is_database(place):
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as database:
            for table in tables(database):
                yield f"{place.name}:{table}", _dump(database, table)


def is_database(place: Path) -> bool:
    """Tell whether a file is a database of SQLite."""
    with place.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def tables(database: sqlite3.Connection) -> list[str]:
    """Return the names of a database's tables."""
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if not name.startswith("sqlite_")]


def _dump(database: sqlite3.Connection, table: str) -> bytes:
    values = []
    for row in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name out of the database's own schema
        values += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(values)
