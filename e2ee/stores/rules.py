"""What every store enforces alike: one transaction at a time, and bounds on what a record may be.

Owns: the turn that threads take, and the checks of arguments.
Does not know about: how records are kept.
"""

from threading import Lock, get_ident
from typing import Final, final

MAX_KEY: Final = 255
"""Longest key or group, in bytes: their lengths are one byte each at rest."""

_MAX_ORDER: Final = (1 << 63) - 1


@final
class Turn:
    """A lock that threads wait for, and that tells a thread which already holds it instead of waiting for ever."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None

    def take(self) -> None:
        """Wait for the other threads' transactions to end.

        Raises:
            RuntimeError: this thread is inside a transaction already; its block must end first.
        """
        # Only this thread can have stored its own identity, so the comparison needs no lock.
        if self._owner == get_ident():
            raise RuntimeError("transactions of one store do not nest")
        self._lock.acquire()
        self._owner = get_ident()

    def give_back(self) -> None:
        """Let the next thread go on."""
        self._owner = None
        self._lock.release()


def check_record(key: bytes, group: bytes, order: int) -> None:
    """Refuse what no store could keep.

    Raises:
        ValueError: key or group is longer than 255 bytes, or order does not fit in a signed 64-bit integer.
    """
    if len(key) > MAX_KEY or len(group) > MAX_KEY:
        raise ValueError(f"keys and groups are at most {MAX_KEY} bytes")
    check_order(order)


def check_order(order: int) -> None:
    """Refuse orders that do not fit in a signed 64-bit integer, with ValueError."""
    if not -_MAX_ORDER <= order <= _MAX_ORDER:
        raise ValueError("order is an integer of 63 bits and sign")


def check_range(within: tuple[int, int]) -> None:
    """Refuse bounds that are no orders, with ValueError. An empty range is no mistake."""
    for bound in within:
        check_order(bound)


def check_limit(limit: int | None) -> None:
    """Refuse negative limits, which SQL would read as no limit, with ValueError."""
    if limit is not None and limit < 0:
        raise ValueError("limit is zero or more")
