"""In which order the rows of one inbox are sent on one connection.

Owns: the order. Lower lanes first; every eighth row is the oldest of all, so that no lane stands still.
Does not know about: databases and connections.

Within one sending device the order is bounded by a window: `ordinal` numbers a device's envelopes to this inbox, and
a row may go only while its ordinal is at most 500 above the lowest one not sent yet. So a row overtakes at most 500
earlier ones, and is itself overtaken by at most 500 later ones, however often the client reconnects: half of what a
receiver may skip.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, final

from e2ee.wire.envelope import Lane

MAX_OVERTAKEN: Final = 500
OLDEST_EVERY: Final = 8
LOOKAHEAD: Final = 64
"""Rows of each lane looked at in advance: their numbers only, bodies stay in the database."""
_REFILL: Final = LOOKAHEAD // 2
"""A lane is read again when no more than these are left: looking for the floors costs the whole backlog."""


class Waiting(NamedTuple):
    """A row that waits. `sender` is the mailbox's number of the sending device; `size` is 0 without a body."""

    seq: int
    lane: int
    sender: int
    ordinal: int
    size: int


class Budget(NamedTuple):
    """How much may be sent now."""

    messages: int
    bytes: int


@final
class Schedule:
    """What one connection has still to send. Every row is chosen once."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Waiting]] = {int(lane): deque() for lane in Lane}
        self._after: dict[int, int] = {int(lane): 0 for lane in Lane}
        self._floors: dict[int, int] = {}
        self._turn = 1

    @property
    def is_blocked(self) -> bool:
        """True if there are rows, but none may go: they wait for one not read yet, or acked since it was looked at."""
        return any(self._lanes.values()) and self._next(self._lowest()) is None

    def wanted(self) -> dict[int, tuple[int, int]]:
        """Say what to read next: of each lane, rows above which seq, and how many."""
        return {
            lane: (self._after[lane], 0 if len(rows) > _REFILL else LOOKAHEAD - len(rows))
            for lane, rows in self._lanes.items()
        }

    def add(self, rows: Iterable[Waiting]) -> bool:
        """Take in what was read. Return True if a lane was not read to its end, so there may be more."""
        is_partial = any(len(lane) > _REFILL for lane in self._lanes.values())
        for row in sorted(rows):
            self._lanes[row.lane].append(row)
            self._after[row.lane] = row.seq
        return is_partial or any(len(lane) >= LOOKAHEAD for lane in self._lanes.values())

    def set_unread_floors(self, floors: Mapping[int, int]) -> None:
        """State the lowest ordinal of each sender among the rows not read yet."""
        self._floors = dict(floors)

    def choose(self, budget: Budget) -> list[Waiting]:
        """Take the next rows, in order, as far as the budget goes. A row that does not fit ends the choice."""
        messages, room = budget
        chosen: list[Waiting] = []
        floors = self._lowest()
        while messages > 0 and (row := self._next(floors)) is not None and row.size <= room:
            self._lanes[row.lane].remove(row)
            self._turn += 1
            chosen.append(row)
            messages, room = messages - 1, room - row.size
            if row.ordinal == floors[row.sender]:
                floors = self._lowest()
        return chosen

    def _next(self, floors: Mapping[int, int]) -> Waiting | None:
        eligible = (row for row in self._rows() if row.ordinal <= floors[row.sender] + MAX_OVERTAKEN)
        return min(eligible, default=None) if self._turn % OLDEST_EVERY == 0 else next(eligible, None)

    def _rows(self) -> Iterator[Waiting]:
        for rows in self._lanes.values():
            yield from rows

    def _lowest(self) -> dict[int, int]:
        lowest = dict(self._floors)
        for row in self._rows():
            lowest[row.sender] = min(row.ordinal, lowest.get(row.sender, row.ordinal))
        return lowest
