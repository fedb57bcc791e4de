"""The lock that keeps a second process away from a database whose first one would not hear it.

Owns: that lock, and what to do about it.
Does not know about: buses.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, text

from keyserver.database import database_url, is_sqlite, postgresql_engine
from keyserver.settings import LOCAL_BUS, Settings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK: Final = int.from_bytes(hashlib.sha256(b"e2ee-layer: the only process").digest()[:8], "big", signed=True)
_SERVED: Final = (
    "another process serves this database, and the two would not hear each other: stop it, or give all processes a bus "
    "(E2EE_BUS=postgresql, or a redis:// URL)"
)


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
    url = database_url(settings.database)
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
    engine = postgresql_engine(url)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one():
                raise SecondProcessError
            yield
    finally:
        engine.dispose()
