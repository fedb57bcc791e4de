"""The server's database: synchronous work in transactions, off the event loop.

Owns: engines, worker threads, how work is grouped into transactions.
Does not know about: tables and statements.

SQLite has one writer. One thread takes every write waiting at that moment and runs them in one transaction, each in
its own savepoint; nobody gets a result before the commit.

PostgreSQL gets a thread pool and a transaction each; which of them are run again is in postgresql.py.

Nobody waits for ever: whoever has no result after `PATIENCE_S` is told that the database does not answer.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from keyserver.postgresql import POOL_THREADS, DatabaseUnavailableError, Transactions, postgresql_engine

T = TypeVar("T")

MAX_GROUP: Final = 256
"""Writes in one transaction, so that the first of them does not wait for ever."""

PATIENCE_S: Final = 12.0
"""Seconds that a caller waits, below the 15 s that a client waits for its answer."""

_READ_THREADS: Final = 4
_BUSY_TIMEOUT_S: Final = 10


def database_url(text: str) -> URL:
    """Turn a setting into a URL: a path means an SQLite file.

    Raises:
        ValueError: neither a path nor a URL of SQLite or PostgreSQL, or an SQLite database in memory.
    """
    if "://" not in text:
        text_url = URL.create("sqlite", database=text)
    else:
        try:
            text_url = make_url(text)
        except ArgumentError:
            raise ValueError("the database is neither a path nor a URL") from None
    backend = text_url.get_backend_name()
    if backend == "postgresql":
        return text_url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ValueError("the database is SQLite or PostgreSQL")
    if text_url.database in (None, "", ":memory:"):
        # Readers and the writer have connections of their own, and each would see a database of its own.
        raise ValueError("SQLite needs a file")
    return text_url.set(drivername="sqlite")


def is_sqlite(url: URL) -> bool:
    """Say whether a URL names an SQLite file."""
    return url.get_backend_name() == "sqlite"


class _Worker(Protocol):
    def submit(self, work: Callable[[Connection], Any]) -> Future[Any]: ...

    def close(self) -> None: ...


@final
class Database:
    """Runs work on connections. `start` before use, `close` after."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        self._one: _Worker | None = None
        self._engines: list[Engine] = []

    @property
    def is_sqlite(self) -> bool:
        return is_sqlite(self._url)

    @staticmethod
    def patience() -> float:
        """Return for how many seconds a caller waits."""
        return PATIENCE_S

    async def start(self) -> None:
        """Open the database. Idempotent."""
        if self._writer is None:
            await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Finish what was accepted, then close every connection. Idempotent."""
        writer, reader = self._writer, self._reader
        self._writer = self._reader = self._one = None
        for worker in (writer, reader):
            if worker is not None:
                await asyncio.to_thread(worker.close)
        for engine in self._engines:
            engine.dispose()
        self._engines.clear()

    async def write(self, work: Callable[[Connection], T], *, patience: float | None = PATIENCE_S) -> T:
        """Run `work` in a transaction; return its result after the commit. What it raises rolls it back.

        Work may run several times, of which one is committed; and it runs even if the caller is cancelled or loses
        patience meanwhile: a lost answer, like one lost on the network.

        Raises:
            DatabaseUnavailableError: there is no answer; the work is committed, or nothing of it.
        """
        return await self._run(self._writer, work, patience)

    async def write_one(self, work: Callable[[Connection], T]) -> T:
        """Run `work` that changes something by one statement, with what that alone saves.

        Raises:
            DatabaseUnavailableError: there is no answer; the statement is committed, or nothing of it.
        """
        return await self._run(self._one, work, PATIENCE_S)

    async def read(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Run `work`, which only reads; it sees every write whose call has returned. It may run several times.

        On PostgreSQL each of its statements sees the database at the moment it begins, as in a writing transaction.

        Raises:
            DatabaseUnavailableError: there is no answer.
        """
        return await self._run(self._reader, work, PATIENCE_S if patience is None else patience)

    def _open(self) -> None:
        if not self.is_sqlite:
            engine = postgresql_engine(self._url)
            self._engines.append(engine)
            transactions, executor = Transactions(engine), _threads(POOL_THREADS)
            self._reader, self._one = _Pool(executor, transactions.read), _Pool(executor, transactions.write_one)
            self._writer = _Pool(executor, transactions.write)
            return
        write_engine, read_engine = sqlite_engine(self._url), sqlite_engine(self._url, reading=True)
        self._engines += [write_engine, read_engine]
        self._writer = self._one = _GroupWriter(write_engine)
        self._reader = _Pool(_threads(_READ_THREADS), partial(_in_transaction, read_engine))

    async def _run(self, worker: _Worker | None, work: Callable[[Connection], T], patience: float | None) -> T:
        if worker is None:
            raise RuntimeError("the database is not started: FastAPI(lifespan=services.lifespan), or within your own")
        future: Future[T] = worker.submit(work)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise DatabaseUnavailableError from None


def sqlite_engine(url: URL, *, reading: bool = False) -> Engine:
    """Make an engine whose transactions are SQLite's own.

    The driver's implicit transactions lose updates: two transactions may both read before either writes. So the
    driver is told to begin nothing by itself, and a writing transaction takes the write lock when it begins.
    """
    engine = create_engine(url, hide_parameters=True, connect_args={"check_same_thread": False})
    if url.database is not None:
        _keep_private(Path(url.database))

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {_BUSY_TIMEOUT_S * 1000}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"query_only = {'ON' if reading else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _keep_private(path: Path) -> None:
    """Make the file readable by its owner only, if it is new. SQLite's own files beside it follow it."""
    with contextlib.suppress(OSError):  # what is wrong with the path, connecting says better
        path.touch(mode=0o600)


def _threads(number: int) -> Executor:
    return ThreadPoolExecutor(number, thread_name_prefix="e2ee-database")


def _in_transaction(engine: Engine, work: Callable[[Connection], Any]) -> Any:
    with engine.begin() as connection:
        return work(connection)


@final
class _Pool:
    """A transaction for each piece of work, in one of several threads."""

    def __init__(self, executor: Executor, run: Callable[[Callable[[Connection], Any]], Any]) -> None:
        self._executor = executor
        self._run = run

    def submit(self, work: Callable[[Connection], Any]) -> Future[Any]:
        return self._executor.submit(self._run, work)

    def close(self) -> None:
        self._executor.shutdown()


@final
class _GroupWriter:
    """The one thread that writes to SQLite."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="e2ee-database-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._queue.put((work, future))
        return future

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            group, closing = [first], False
            while len(group) < MAX_GROUP and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    closing = True
                    break
                group.append(following)
            self._transaction(group)
            if closing:
                return

    def _transaction(self, group: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        outcomes: list[Callable[[], None]] = []
        try:
            with self._engine.begin() as connection:
                for work, future in group:
                    outcomes.append(_in_savepoint(connection, work, future))
        except Exception as error:  # noqa: BLE001  # whatever the commit raised belongs to the callers
            outcomes = [_failure(future, error) for _, future in group]
        for settle in outcomes:
            settle()


def _in_savepoint(connection: Connection, work: Callable[[Connection], Any], future: Future[Any]) -> Callable[[], None]:
    """Run one piece of work of a group; return what tells its caller after the commit."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101  # for the type checker
    driver.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except Exception as error:  # it goes to the caller, as if the call had been a plain one
        if not driver.in_transaction:
            raise  # SQLite gave up the whole transaction (disk full, I/O error): so does the group
        driver.execute("ROLLBACK TO work")
        driver.execute("RELEASE work")
        return _failure(future, error)
    driver.execute("RELEASE work")
    return lambda: _settle(future, lambda: future.set_result(result))


def _failure(future: Future[Any], error: Exception) -> Callable[[], None]:
    return lambda: _settle(future, lambda: future.set_exception(error))


def _settle(future: Future[Any], settle: Callable[[], None]) -> None:
    # False: the caller was cancelled and does not listen any more.
    if future.set_running_or_notify_cancel():
        settle()
