"""A store whose disk fails on demand, for tests of what is left behind.

Owns: counting writes and raising StoreUnavailableError at the chosen one.
Does not know about: records.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from e2ee.errors import StoreUnavailableError
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.stores.memory import MemoryStore, MemoryTransaction


class BreakingStore:
    """Behaves like the `MemoryStore` inside until `puts_left` further records were put; None never breaks."""

    def __init__(self) -> None:
        self._inside = MemoryStore()
        self.puts_left: int | None = None

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return self._inside.read()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._inside.write() as tx:
            yield _BreakingTransaction(self, tx)

    def close(self) -> None:
        self._inside.close()


class _BreakingTransaction:
    def __init__(self, store: BreakingStore, inside: MemoryTransaction) -> None:
        self._store = store
        self.get, self.scan, self.count = inside.get, inside.scan, inside.count
        self.scan_range = inside.scan_range
        self.delete, self.delete_group, self.delete_before = inside.delete, inside.delete_group, inside.delete_before
        self._put = inside.put

    def put(self, table: Table, key: bytes, value: bytes, *, group: bytes = b"", order: int = 0) -> None:
        if self._store.puts_left is not None:
            if self._store.puts_left == 0:
                raise StoreUnavailableError("the disk of this test is full")
            self._store.puts_left -= 1
        self._put(table, key, value, group=group, order=order)
