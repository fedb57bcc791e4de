"""On which database a test runs: SQLite, unless its module asks for both.

Owns: that choice, one PostgreSQL for each process of the tests, and what statements a database was asked to run.
Does not know about: tables.

A module whose tests are to run on both says `from tests.databases import each_database`; whatever then opens a
database through `database_for` gets one of the kind whose turn it is.
"""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.servers.postgresql import PostgreSql

__all__ = ["database_for", "each_database", "on_postgresql", "postgresql", "statements"]

_kind = "sqlite"


@cache
def postgresql() -> PostgreSql:
    """Return the running server, starting it when it is asked for first."""
    server = PostgreSql()
    server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return server


def database_for(path: Path) -> str:
    """Return what a test sets as its database: this file, or a new database of PostgreSQL."""
    return postgresql().new_database() if _kind == "postgresql" else str(path)


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect every statement that any engine runs."""
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
def each_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test of a module twice."""
    yield from _on(str(request.param))


@pytest.fixture
def on_postgresql() -> Iterator[None]:
    """Run a test on PostgreSQL."""
    yield from _on("postgresql")


def _on(kind: str) -> Iterator[None]:
    global _kind  # noqa: PLW0603 - one test at a time in a process
    before, _kind = _kind, kind
    yield
    _kind = before
