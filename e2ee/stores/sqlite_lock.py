"""The single-writer lock: a locked side file next to the store.

Owns: taking it, waiting for it, letting it go.
Does not know about: SQLite, whose own locks a second tool may take as well.

The operating system drops the lock when the process ends, however it ends, so there is never a stale one to remove.
The file itself stays: removing it would let two processes hold locks on two files of one name.
"""

import errno
import os
import sys
import time
from io import FileIO
from pathlib import Path
from typing import Final, final

from e2ee.errors import StoreLockedError, StoreUnavailableError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_SECONDS: Final = 0.02
_HELD_BY_ANOTHER: Final = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


@final
class FileLock:
    """Held from construction until `release`."""

    __slots__ = ("_file",)

    def __init__(self, path: Path, wait: float) -> None:
        """Take the lock, trying again for up to `wait` seconds.

        Raises:
            StoreLockedError: another store object, in this process or in another, still holds it.
            StoreUnavailableError: the lock file cannot be opened, or its file system has no locks.
        """
        try:
            self._file = FileIO(path, "a", opener=_open_private)
        except OSError as error:
            raise StoreUnavailableError(f"{path}: {error.strerror}") from None
        deadline = time.monotonic() + wait
        while not self._try():
            # A blocking lock could not be given up after a time, hence asking again.
            if time.monotonic() >= deadline:
                self._file.close()
                raise StoreLockedError
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let the lock go. Idempotent."""
        # Closing, not unlocking: after a fork, an unlock in the child would take the lock from the parent.
        self._file.close()

    def _try(self) -> bool:
        try:
            _lock_at_once(self._file.fileno())
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                return False
            self._file.close()
            raise StoreUnavailableError(f"the file system refuses to lock: {error.strerror}") from None
        return True


def _lock_at_once(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
