"""The file system under SQLite, failing at a chosen operation: a full disk, or an error in reading, writing, syncing.

Owns: what SQLite is told when a file operation fails. Everything above is real: SQLite, its log, its recovery.
Does not know about: records, transactions, what must hold afterwards.

SQLite reaches files through a table of functions (sqlite3_vfs, sqlite3_io_methods: https://sqlite.org/vfs.html). Here
some of them are replaced, in this process and for files opened while the block lasts. It needs no privileges.
"""

import _sqlite3
import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from enum import Enum
from types import TracebackType
from typing import Final, Self

_FULL: Final = 13
_IOERR_READ, _IOERR_WRITE, _IOERR_FSYNC, _IOERR_TRUNCATE = (10 | kind << 8 for kind in (1, 3, 4, 6))

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Transfer = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _IoMethods(Structure):
    """sqlite3_io_methods. What is not replaced is copied as it is."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", _Transfer),
        ("write", _Transfer),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", c_void_p * 13),
    )


class _File(Structure):
    _fields_ = (("methods", POINTER(_IoMethods)),)


class _Vfs(Structure):
    """The beginning of sqlite3_vfs."""

    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("path_size", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
    )


class Failure(Enum):
    """What a disk does when its time has come."""

    FULL = "full"
    """Writes stop half-way, until there is room again. Reading goes on."""
    ERROR_ONCE = "error once"
    """One operation of any kind fails; the next ones work."""
    ERROR_FOR_GOOD = "error for good"
    """That operation and everything after it fails."""


_kept: "list[FailingDisk]" = []
"""For ever: a file that outlives the block goes on calling these functions."""


class FailingDisk:
    """Lets file operations of SQLite fail while its block lasts. One at a time."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._vfs: _Vfs = library.sqlite3_vfs_find(None).contents
        # A copy: what ctypes hands out is a view of the field, which is about to change.
        self._real_open = _Open.from_buffer_copy(self._vfs.open)
        self._open = _Open(self._opened)
        self._tables: dict[int, tuple[_IoMethods, _IoMethods]] = {}
        _kept.append(self)
        self._left: int | None = None
        self._failure = Failure.FULL
        self.has_failed = False

    def fail(self, after: int, failure: Failure) -> None:
        """Let the operation fail that follows `after` more of those that this failure concerns."""
        self._left, self._failure, self.has_failed = after, failure, False

    def recover(self) -> None:
        """Work again."""
        self._left = None

    def __enter__(self) -> Self:
        self._vfs.open = self._open
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recover()
        self._vfs.open = self._real_open

    def _fails(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        if self._left >= 0:
            return False
        self.has_failed = True
        if self._failure is Failure.ERROR_ONCE:
            self._left = None
        return True

    def _opened(self, vfs: int, name: int, file: int, flags: int, out_flags: int) -> int:
        code = int(self._real_open(vfs, name, file, flags, out_flags))
        opened = ctypes.cast(file, POINTER(_File)).contents
        if code == 0 and opened.methods:
            address = ctypes.addressof(opened.methods.contents)
            if address not in self._tables:
                self._tables[address] = opened.methods.contents, self._replaced(opened.methods.contents)
            opened.methods = ctypes.pointer(self._tables[address][1])
        return code

    def _replaced(self, real: _IoMethods) -> _IoMethods:
        """Return a table whose functions fail, or do what the real ones do."""

        def read(file: int, buffer: int, amount: int, offset: int) -> int:
            if self._failure is not Failure.FULL and self._fails():
                return _IOERR_READ
            return int(real.read(file, buffer, amount, offset))

        def write(file: int, buffer: int, amount: int, offset: int) -> int:
            if not self._fails():
                return int(real.write(file, buffer, amount, offset))
            if self._failure is not Failure.FULL:
                return _IOERR_WRITE
            real.write(file, buffer, amount // 2, offset)
            return _FULL

        def truncate(file: int, size: int) -> int:
            if self._failure is not Failure.FULL and self._fails():
                return _IOERR_TRUNCATE
            return int(real.truncate(file, size))

        def sync(file: int, flags: int) -> int:
            if self._failure is not Failure.FULL and self._fails():
                return _IOERR_FSYNC
            return int(real.sync(file, flags))

        table = _IoMethods.from_buffer_copy(real)
        table.read, table.write = _Transfer(read), _Transfer(write)
        table.truncate, table.sync = _Truncate(truncate), _Sync(sync)
        return table
