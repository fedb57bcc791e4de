"""PostgreSQL: connections, which transactions are run again, what callers are told while it is away.

Owns: the pool and its timeouts, what a failure means, and that a transaction which may have been committed is never run
a second time.
Does not know about: threads, tables and statements.

| failure | when | what follows |
|---|---|---|
| deadlock, serialisation failure | at any time | PostgreSQL rolled back: run again |
| connection lost | before COMMIT was sent | nothing was committed: run again on a new connection |
| connection lost | after COMMIT was sent | nobody knows: a write is not run again, the caller repeats the request |
| no connection to be had, or a timeout | | `DatabaseUnavailableError` |
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, Final, TypeVar, final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

POOL_THREADS: Final = 16
"""Connections of one process, and threads that use them."""

STATEMENT_TIMEOUT_MS: Final = 10_000
LOCK_TIMEOUT_MS: Final = 5_000
"""Below what a client waits for its answer (15 s), so that it is told."""

IDLE_TIMEOUT_MS: Final = 10_000
"""Between two statements of a transaction. A node that stopped in the middle of its work holds rows for no longer; when
it goes on, it runs the transaction again."""

_CONNECT_TIMEOUT_S: Final = 5
_ATTEMPTS: Final = 5
_UNANSWERED_MS: Final = 12_000
"""Bytes that a vanished machine does not acknowledge for so long end the connection."""

_MET_ANOTHER: Final = frozenset({"40001", "40P01"})
"""SQLSTATE of serialization_failure and deadlock_detected."""
_GONE: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25006"})
"""Shut down, crashed, not accepting connections, idle for too long; and read-only, which a server is that was replaced
by its standby: the next connection leads to the new one."""
_LOCK_NOT_AVAILABLE: Final = "55P03"
_BUSY: Final = frozenset({_LOCK_NOT_AVAILABLE, "57014"})
"""lock_not_available and query_canceled: one of the timeouts. Class 53 (insufficient resources) counts, too."""

_log = logging.getLogger("keyserver")


class DatabaseUnavailableError(Exception):
    """The database does not answer now. What was asked is done, or not done, as a whole; it may be asked again."""

    def __init__(self) -> None:
        super().__init__("the database does not answer")


@final
class RowLockedError(DatabaseUnavailableError):
    """Another transaction holds a row for too long. Nothing was done; what needs other rows would be."""


def postgresql_engine(url: URL, *, threads: int = POOL_THREADS) -> Engine:
    """Make an engine that waits neither for a statement, nor for a lock, nor for a vanished machine for ever."""
    timeouts = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
    }
    return create_engine(
        url,
        pool_size=threads,
        max_overflow=0,
        # The connection that was used last knows the statements that are run most.
        pool_use_lifo=True,
        hide_parameters=True,
        # No ping before each use: it costs a round trip, and what it would find `Transactions` runs again.
        connect_args={
            "cursor_factory": _binary_cursor(),
            "options": " ".join(f"-c {name}={value}" for name, value in timeouts.items()),
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": _UNANSWERED_MS,
        },
    )


def _binary_cursor() -> type:
    """Return a cursor whose results come in PostgreSQL's binary format: no bytes are written as hex digits and read."""
    from psycopg import Cursor
    from psycopg.pq import Format

    class BinaryCursor(Cursor[Any]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.format = Format.BINARY

    return BinaryCursor


def take_your_time(connection: Connection) -> None:
    """Lift the timeouts of this transaction, on PostgreSQL: for migrations and housekeeping."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))


def wait_for_rows(connection: Connection, milliseconds: int) -> None:
    """Let this transaction wait for so long, and no longer, for each row that another one holds; on PostgreSQL."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT set_config('lock_timeout', :its, true)"), {"its": str(milliseconds)})


@final
class Transactions:
    """Runs work in transactions. Safe for several threads, as many as the engine has connections."""

    def __init__(self, engine: Engine) -> None:
        self._door = _Door(engine)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, and commit. Work may be run several times, of which one is committed.

        Raises:
            DatabaseUnavailableError: there is no answer; the work was committed, or nothing of it.
        """
        return self._run(work, _Kind.WRITING)

    def write_one(self, work: Callable[[Connection], T]) -> T:
        """Run `work` that changes something by one statement, which is a transaction by itself.

        Raises:
            DatabaseUnavailableError: there is no answer; the statement was done, or nothing of it.
        """
        return self._run(work, _Kind.ONE_STATEMENT)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads; it may be run several times.

        Raises:
            DatabaseUnavailableError: there is no answer.
        """
        return self._run(work, _Kind.READING)

    def _run(self, work: Callable[[Connection], T], kind: "_Kind") -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            committing = kind is _Kind.ONE_STATEMENT
            try:
                with self._door.connection() as connection:
                    if kind is not _Kind.WRITING:
                        # Neither BEGIN nor COMMIT: in a transaction, too, each statement has a snapshot of its own.
                        connection.execution_options(isolation_level="AUTOCOMMIT")
                        return work(connection)
                    with connection.begin() as transaction:
                        result = work(connection)
                        committing = True
                        transaction.commit()
                        return result
            except DBAPIError as error:
                meaning = _meaning(error)
                if meaning is _Meaning.OTHER:
                    raise
                unknown = meaning is _Meaning.GONE and committing
                if meaning is _Meaning.BUSY or unknown or attempt == _ATTEMPTS:
                    _log.warning("a transaction found no answer: %s", type(error.orig).__name__)
                    raise (RowLockedError if _is_locked(error) else DatabaseUnavailableError)() from error
            # Random, so that two that met do not meet again.
            time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311 - no secret
        raise AssertionError("unreachable")


class _Kind(Enum):
    READING = auto()
    ONE_STATEMENT = auto()
    WRITING = auto()


class _Meaning(Enum):
    MET_ANOTHER = auto()
    GONE = auto()
    BUSY = auto()
    OTHER = auto()


def _meaning(error: DBAPIError) -> _Meaning:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate in _MET_ANOTHER:
        return _Meaning.MET_ANOTHER
    if sqlstate in _BUSY or (sqlstate or "").startswith("53"):
        return _Meaning.BUSY
    if error.connection_invalidated or sqlstate in _GONE or (sqlstate or "").startswith("08"):
        return _Meaning.GONE
    return _Meaning.OTHER


def _is_locked(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


@final
class _Door:
    """The way to a connection. While nobody opens, one at a time knocks, and the others are sent away at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._away = False
        self._knocking = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            DatabaseUnavailableError: there is none to be had.
        """
        connection = self._open()
        try:
            yield connection
        except DBAPIError as error:
            if _meaning(error) is _Meaning.GONE:
                connection.invalidate()  # also where the server only said that it is no use any more
            raise
        finally:
            connection.close()

    def _open(self) -> Connection:
        if not self._away:
            return self._knock()
        if not self._knocking.acquire(blocking=False):
            raise DatabaseUnavailableError
        try:
            return self._knock()
        finally:
            self._knocking.release()

    def _knock(self) -> Connection:
        try:
            connection = self._engine.connect()
        except DBAPIError as error:
            if not self._away:
                self._away = True
                _log.error("the database cannot be reached: %s", type(error.orig).__name__)
            raise DatabaseUnavailableError from error
        if self._away:
            self._away = False
            _log.warning("the database can be reached again")
        return connection
