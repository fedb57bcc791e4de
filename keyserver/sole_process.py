"""The lock that keeps a second process away from a database whose first one would not hear it.

Owns: that lock, and what to do about it.
Does not know about: buses.
"""

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, final

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from keyserver.database import database_url, is_sqlite
from keyserver.postgresql import postgresql_engine
from keyserver.settings import LOCAL_BUS, Settings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK: Final = int.from_bytes(hashlib.sha256(b"e2ee-layer: the only process").digest()[:8], "big", signed=True)
_TAKE: Final = text("SELECT pg_try_advisory_lock(:key)")
_ASK: Final = text("SELECT 1")
_WATCH_SECONDS: Final = 5.0
_SERVED: Final = (
    "another process serves this database, and the two would not hear each other: stop it, or give all processes a bus "
    "(E2EE_BUS=postgresql, or a redis:// URL)"
)


_log = logging.getLogger("keyserver")


class SecondProcessError(RuntimeError):
    """Another process serves the database, and there is no bus between the two."""

    def __init__(self) -> None:
        super().__init__(_SERVED)


@asynccontextmanager
async def sole_process(settings: Settings) -> AsyncIterator[None]:
    """Hold the database for this process alone, if there is no bus.

    Raises:
        SecondProcessError: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, _lock(settings))
        yield


def check_alone(settings: Settings) -> None:
    """Look whether `sole_process` would succeed now.

    Raises:
        SecondProcessError: it would not.
    """
    with _lock(settings):
        pass


def _lock(settings: Settings) -> AbstractContextManager[None]:
    if settings.bus != LOCAL_BUS:
        return contextlib.nullcontext()
    return database_lock(database_url(settings.database))


def database_lock(url: URL) -> AbstractContextManager[None]:
    """Hold a database against every process that has no bus.

    Raises:
        SecondProcessError: such a process holds it.
    """
    return _file_lock(Path(url.database or "")) if is_sqlite(url) else _advisory_lock(url)


@contextmanager
def _file_lock(database: Path) -> Iterator[None]:
    """Lock a file beside the database: whoever closes the database's own would let go of SQLite's locks, too."""
    if fcntl is None:
        yield
        return
    beside = database.with_name(database.name + "-serving")
    with beside.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SecondProcessError from None
        yield


@contextmanager
def _advisory_lock(url: URL) -> Iterator[None]:
    """Hold a lock of PostgreSQL's in a session of its own, which takes it along when it ends; a thread looks."""
    engine = postgresql_engine(url, threads=1)
    over = threading.Event()
    try:
        session = _Session(engine)
        if not session.holds_lock():
            raise SecondProcessError
        watch = threading.Thread(target=_watch, args=(session, over), name="e2ee-sole-process", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            session.end()
    finally:
        engine.dispose()


@final
class _Session:
    """The database session whose end is the lock's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def holds_lock(self) -> bool:
        """Take the lock, unless this session has it; say whether it has it now.

        Raises:
            DBAPIError: the database does not answer.
        """
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                return bool(self._connection.execute(_TAKE, {"key": _LOCK}).scalar_one()) or self._lost()
            self._connection.execute(_ASK)
        except DBAPIError:
            self.end()
            raise
        return True

    def _lost(self) -> bool:
        self.end()
        return False

    def end(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # closed and not put back: the lock ends with the session
            self._connection.close()
            self._connection = None


def _watch(session: _Session, over: threading.Event) -> None:
    """Take the lock again when the database was away."""
    while not over.wait(_WATCH_SECONDS):
        try:
            if not session.holds_lock():
                _log.error("%s", _SERVED)
        except DBAPIError as error:
            _log.error("the lock of the only process cannot be taken: %s", type(error.orig).__name__)
