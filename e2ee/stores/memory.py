"""A store that forgets everything when the process ends: for tests, examples and short-lived devices.

Owns: records in dictionaries, and an undo log per transaction.
Does not know about: files, encryption, what records mean.
"""

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self, final

from e2ee.ports import Record, Table
from e2ee.stores.rules import Turn, check_limit, check_order, check_range, check_record


@final
class MemoryStore:
    """Keeps the same promises as the store on disk, durability excepted."""

    def __init__(self) -> None:
        self._shelves: dict[Table, _Shelf] | None = {table: _Shelf() for table in Table}
        self._turn = Turn()

    def read(self) -> "MemoryReadTransaction":
        """Open a consistent view; use it in a `with` block."""
        return MemoryReadTransaction(self)

    def write(self) -> "MemoryTransaction":
        """Open a transaction; use it in a `with` block, which commits unless it raises."""
        return MemoryTransaction(self)

    def close(self) -> None:
        """Drop all records. Idempotent."""
        self._turn.take()
        self._shelves = None
        self._turn.give_back()

    def begin(self) -> "dict[Table, _Shelf]":
        """Wait for the turn and hand out the records. For the transactions of this module."""
        self._turn.take()
        if self._shelves is None:
            self._turn.give_back()
            raise RuntimeError("the store is closed")
        return self._shelves

    def end(self) -> None:
        """Let the next transaction begin. For the transactions of this module."""
        self._turn.give_back()


class MemoryReadTransaction:
    """See `e2ee.ports.ReadTransaction`."""

    __slots__ = ("_open_shelves", "_store")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._open_shelves: dict[Table, _Shelf] | None = None

    def __enter__(self) -> Self:
        self._open_shelves = self._store.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_shelves = None
        self._store.end()

    def get(self, table: Table, key: bytes) -> bytes | None:
        record = self._shelf(table).records.get(key)
        return None if record is None else record.value

    def scan(
        self, table: Table, group: bytes | None = None, *, limit: int | None = None, newest_first: bool = False
    ) -> Sequence[Record]:
        check_limit(limit)
        return sorted(self._shelf(table).of_group(group), key=_by_order_then_key, reverse=newest_first)[:limit]

    def scan_range(
        self,
        table: Table,
        group: bytes,
        within: tuple[int, int],
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Record]:
        check_range(within)
        check_limit(limit)
        members = [each for each in self._shelf(table).of_group(group) if within[0] <= each.order <= within[1]]
        return sorted(members, key=_by_order_then_key, reverse=newest_first)[:limit]

    def count(self, table: Table, group: bytes | None = None) -> int:
        return len(self._shelf(table).of_group(group))

    def _shelf(self, table: Table) -> "_Shelf":
        if self._open_shelves is None:
            raise RuntimeError("the transaction is not open")
        return self._open_shelves[table]


@final
class MemoryTransaction(MemoryReadTransaction):
    """See `e2ee.ports.Transaction`. Writes in place and keeps what it overwrote, to put it back on an exception."""

    __slots__ = ("_overwritten",)

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self._overwritten: list[tuple[_Shelf, bytes, Record | None]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for shelf, key, previous in reversed(self._overwritten):
                shelf.replace(key, previous)
        self._overwritten.clear()
        super().__exit__(kind, error, trace)

    def put(self, table: Table, key: bytes, value: bytes, *, group: bytes = b"", order: int = 0) -> None:
        shelf = self._shelf(table)
        check_record(key, group, order)
        self._replace(shelf, key, Record(key, value, group, order))

    def delete(self, table: Table, key: bytes) -> None:
        self._delete_all(self._shelf(table), (key,))

    def delete_group(self, table: Table, group: bytes) -> int:
        shelf = self._shelf(table)
        return self._delete_all(shelf, [record.key for record in shelf.of_group(group)])

    def delete_before(self, table: Table, order: int, *, limit: int | None = None) -> int:
        check_order(order)
        check_limit(limit)
        shelf = self._shelf(table)
        older = sorted((record for record in shelf.records.values() if record.order < order), key=_by_order_then_key)
        return self._delete_all(shelf, [record.key for record in older[:limit]])

    def _delete_all(self, shelf: "_Shelf", keys: Sequence[bytes]) -> int:
        for key in keys:
            self._replace(shelf, key, None)
        return len(keys)

    def _replace(self, shelf: "_Shelf", key: bytes, record: Record | None) -> None:
        self._overwritten.append((shelf, key, shelf.replace(key, record)))


@final
class _Shelf:
    """The records of one table, by key and by group."""

    __slots__ = ("_groups", "records")

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self._groups: dict[bytes, dict[bytes, Record]] = {}

    def of_group(self, group: bytes | None) -> Collection[Record]:
        return self.records.values() if group is None else self._groups.get(group, {}).values()

    def replace(self, key: bytes, record: Record | None) -> Record | None:
        """Set the record under `key`, or remove it; return the one that was there."""
        previous = self.records.pop(key, None)
        if previous is not None:
            members = self._groups[previous.group]
            del members[key]
            if not members:
                del self._groups[previous.group]
        if record is not None:
            self.records[key] = record
            self._groups.setdefault(record.group, {})[key] = record
        return previous


def _by_order_then_key(record: Record) -> tuple[int, bytes]:
    return record.order, record.key
