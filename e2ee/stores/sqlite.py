"""A store in one SQLite file, encrypted at rest.

Owns: the database connection, its durability, and the translation of the library's errors; making and opening files.
Does not know about: how records become rows (sqlite_transactions.py, sqlite_sealing.py), how the data key is kept
(sqlite_keyring.py), what SQL there is (sqlite_schema.py), how a second process is kept out (sqlite_lock.py).
"""

import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from e2ee.errors import CorruptStateError, StateError, StoreLockedError, StoreUnavailableError
from e2ee.ports import Table
from e2ee.primitives.password import DEFAULT_COST, Argon2Cost
from e2ee.stores import sqlite_schema as schema
from e2ee.stores.rules import Turn
from e2ee.stores.sqlite_keyring import DataKey, Opener, opener, unwrap, wrap
from e2ee.stores.sqlite_lock import FileLock
from e2ee.stores.sqlite_sealing import TableCipher
from e2ee.stores.sqlite_transactions import Shelf, SqliteReadTransaction, SqliteTransaction

# Nothing is trusted that the file says about itself, nothing is written but the file and its log, deleted bytes are
# overwritten, and a commit is on the disk when it returns (on macOS that takes fullfsync). The exclusive mode keeps
# SQLite's own lock for as long as the store is open, and its index of the log in memory instead of in a third file.
_PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # first, for the next ones read the file, and the reader's mode is set by then
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",
    "temp_store = MEMORY",
    "secure_delete = ON",
    "synchronous = FULL",
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)
# The library's message may quote damaged text, and decoding that raises the second instead of the first.
_LIBRARY_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
_CACHED_STATEMENTS: Final = len(Table) * len(schema.Statements._fields)


@final
class SqliteStore:
    """One device's state in one file. Made by `create` or `open`; a context manager that closes.

    Must not be used in a process forked while it was open.
    """

    __slots__ = ("_database", "_lock", "_path", "_shelves")

    def __init__(self, path: Path, database: "Database", lock: FileLock, data_key: DataKey) -> None:
        """For `create` and `open` only."""
        self._path = path
        self._database = database
        self._lock = lock
        self._shelves = {
            table: Shelf(schema.STATEMENTS[table], TableCipher(data_key, table.label, table.version)) for table in Table
        }

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        passphrase: str | None = None,
        key: bytes | None = None,
        cost: Argon2Cost = DEFAULT_COST,
    ) -> "SqliteStore":
        """Make a new store under a passphrase or a 32-byte key; its directory must exist. Only the owner may read it.

        The file appears under its name when it is complete, so a crash leaves either a store or none.

        Raises:
            StoreUnavailableError: something exists at `path`, or the file system refuses.
            StoreLockedError: another process is making or using it.
            ValueError: both or neither of passphrase and key, an empty passphrase, a cost out of bounds.
        """
        under, file = opener(passphrase, key), Path(path)
        lock = FileLock(_beside(file, ".lock"), wait=0.0)
        try:
            if os.path.lexists(file):
                raise StoreUnavailableError(f"{file} exists already")
            data_key = DataKey(os.urandom(DataKey.LENGTH))
            _build(file, wrap(data_key, under, cost), data_key)
            return cls(file, _open(file, data_key, wait=0.0)[0], lock, data_key)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, passphrase: str | None = None, key: bytes | None = None, wait: float = 0.0
    ) -> "SqliteStore":
        """Open a store, waiting up to `wait` seconds for another process to let go of it.

        Raises:
            WrongPassphraseError: passphrase or key is not the store's; nothing was changed.
            StoreLockedError: another process, or another store object here, has it open.
            StoreVersionError: a newer release wrote it.
            CorruptStateError: it is damaged, or not a store.
            StoreUnavailableError: there is no file, or the file system refuses.
            ValueError: both or neither of passphrase and key.
        """
        under, file = opener(passphrase, key), Path(path)
        if not cls.exists(file):
            raise StoreUnavailableError(f"there is no store at {file}")
        lock = FileLock(_beside(file, ".lock"), wait)
        try:
            database, data_key = _open(file, under, wait)
            return cls(file, database, lock, data_key)
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Tell whether there is a file at `path`; `open` tells whether it is a store."""
        return os.path.isfile(path)

    def read(self) -> SqliteReadTransaction:
        """Open a consistent view; use it in a `with` block."""
        return SqliteReadTransaction(self._database, self._shelves)

    def write(self) -> SqliteTransaction:
        """Open a transaction; use it in a `with` block, which commits unless it raises."""
        return SqliteTransaction(self._database, self._shelves)

    def change_passphrase(self, old: str, new: str, *, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Seal the data key under another passphrase. The data key stays, so older copies of the file open as before.

        Raises:
            WrongPassphraseError: `old` is not the store's passphrase; nothing was changed.
            StoreUnavailableError: the disk refused; the old passphrase stays.
            ValueError: `new` is empty, or the cost is out of bounds.
        """
        database = self._database
        database.begin("BEGIN IMMEDIATE")
        changed = False
        try:
            header = _header(database.rows(schema.SELECT_HEADER, ()))
            database.change(schema.UPDATE_HEADER, (wrap(unwrap(header, old), new, cost),))
            changed = True
        finally:
            database.end(commit=changed)

    def close(self) -> None:
        """Wait for the transaction of another thread, fold the log into the file and let go of it. Idempotent."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SqliteStore {str(self._path)!r}>"


@final
class Database:
    """The library's connection: one transaction at a time, named errors only, and a failed transaction stays failed."""

    __slots__ = ("_connection", "_failure", "_process", "_turn")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._failure: StateError | None = None
        self._process = os.getpid()
        self._turn = Turn()

    def begin(self, statement: str) -> None:
        """Wait for the turn and begin a transaction.

        Raises:
            StateError: one of the errors of `e2ee.ports.Store`.
            RuntimeError: the store is closed, was opened before a fork, or this thread is inside a transaction.
        """
        # Two processes on one connection corrupt the file, and SQLite cannot notice.
        if os.getpid() != self._process:
            raise RuntimeError("the store was opened before this process was forked")
        self._turn.take()
        try:
            if self._connection is None:
                raise RuntimeError("the store is closed")
            self._connection.execute(statement)
        except _LIBRARY_ERRORS as error:
            self._turn.give_back()
            raise named(error) from None
        except BaseException:
            self._turn.give_back()
            raise

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and let the next transaction begin.

        Raises:
            StateError: the commit failed, or a statement before it did; nothing of the transaction was kept.
        """
        connection, failure = self._open(), self._failure
        self._failure = None
        try:
            if commit and failure is None:
                failure = self._try(connection, "COMMIT")
            # Still inside one: not to be committed, or the commit failed.
            if connection.in_transaction:
                failure = self._try(connection, "ROLLBACK") or failure
        finally:
            self._turn.give_back()
        if commit and failure is not None:
            raise failure

    @staticmethod
    def _try(connection: sqlite3.Connection, statement: str) -> StateError | None:
        try:
            connection.execute(statement)
        except _LIBRARY_ERRORS as error:
            return named(error)
        return None

    def rows(self, statement: str, parameters: tuple[bytes | int, ...]) -> list[tuple[object, ...]]:
        """Run a query; return all rows as they lie in the file."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._open().execute(statement, parameters).fetchall()
        except _LIBRARY_ERRORS as error:
            raise self._fail(error) from None

    def change(self, statement: str, parameters: tuple[bytes | int, ...]) -> int:
        """Run a statement that changes rows; return how many."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._open().execute(statement, parameters).rowcount
        except _LIBRARY_ERRORS as error:
            raise self._fail(error) from None

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if os.getpid() != self._process:
            raise RuntimeError("the store was opened before this process was forked")
        self._turn.take()
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        finally:
            self._turn.give_back()

    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None  # noqa: S101  # `begin` saw it, and `close` waits for the turn
        return self._connection

    def _fail(self, error: Exception) -> StateError:
        # A full disk makes SQLite roll back by itself. Were the caller to swallow the error and go on, each further
        # statement would commit on its own: so the transaction refuses everything from here on.
        self._failure = named(error)
        return self._failure


def _build(file: Path, header: bytes, data_key: DataKey) -> None:
    """Make a complete store under a temporary name, then give it its own."""
    draft = _beside(file, ".new")
    try:
        # What a crash left behind; the caller holds the lock, so nobody is working on it.
        for leftover in (draft, _beside(draft, "-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = _connect(draft, wait=0.0)
        try:
            connection.execute("BEGIN IMMEDIATE")
            schema.create_header(connection, header)
            connection.execute("COMMIT")
            schema.migrate(connection, 0, data_key)
        finally:
            connection.close()
        draft.rename(file)
        _sync_directory(file.parent)
    except OSError as error:
        raise StoreUnavailableError(f"{file}: {error.strerror}") from None
    except _LIBRARY_ERRORS as error:
        raise named(error) from None


def _open(file: Path, under: Opener | DataKey, wait: float) -> tuple[Database, DataKey]:
    """Connect, get the data key, and bring the file to the current version."""
    try:
        connection = _connect(file, wait)
        try:
            version = schema.check_version(connection)
            header = _header(connection.execute(schema.SELECT_HEADER).fetchall())
            data_key = under if isinstance(under, DataKey) else unwrap(header, under)
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != (b"wal",):
                raise StoreUnavailableError("the file system does not support a write-ahead log")
            schema.migrate(connection, version, data_key)
            schema.check_schema(connection)
        except BaseException:
            connection.close()
            raise
    except _LIBRARY_ERRORS as error:
        raise named(error) from None
    return Database(connection), data_key


def _connect(file: Path, wait: float) -> sqlite3.Connection:
    # The URI form alone can say "do not create". The turn of `Database` makes one connection safe for all threads.
    connection = sqlite3.connect(
        file.absolute().as_uri() + "?mode=rw",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    try:
        # Damaged text need not be UTF-8, and the default would raise outside the library's errors.
        connection.text_factory = bytes
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _header(rows: list[tuple[object, ...]]) -> bytes:
    if len(rows) != 1 or not isinstance(header := rows[0][0], bytes):
        raise CorruptStateError("the file has no header")
    return header


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _sync_directory(directory: Path) -> None:
    """Make a new name durable, where the operating system can."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_UNAVAILABLE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file or its directory is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_IOERR: "reading or writing failed",
    sqlite3.SQLITE_PERM: "access was denied",
    sqlite3.SQLITE_NOLFS: "the file is too large for its file system",
    sqlite3.SQLITE_TOOBIG: "the record is too large",
    sqlite3.SQLITE_INTERRUPT: "interrupted",
}
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def named(error: Exception) -> StateError:
    """Translate an error of the library by its code. Its text is dropped: a hostile file could have a say in it."""
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = extended & 0xFF
    if primary in _LOCKED:
        return StoreLockedError()
    if primary in _UNAVAILABLE:
        return StoreUnavailableError(f"{_UNAVAILABLE[primary]} ({name})")
    return CorruptStateError(f"the database is damaged ({name})")
