"""Random histories of transactions on a store, compared with a dictionary after every step.

Use: inherit, give `open_store` and, where there is a file to open again, `reopen`.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from e2ee.ports import Record, Store, Table

TABLES = st.sampled_from([Table.SESSIONS, Table.SKIPPED_KEYS])
# Few keys, groups and orders, so that they meet often.
KEYS = st.sampled_from([b"", b"a", b"b", b"c", b"\xff" * 255])
GROUPS = st.sampled_from([b"", b"a", b"g" * 255])
ORDERS = st.integers(-2, 2) | st.sampled_from([-(1 << 63) + 1, (1 << 63) - 1])
VALUES = st.binary(max_size=40) | st.integers(900, 9_000).map(bytes)
LIMITS = st.none() | st.integers(0, 3)

Model = dict[tuple[Table, bytes], Record]


class StoreMachine(RuleBasedStateMachine):
    def open_store(self) -> Store:
        raise NotImplementedError

    def reopen(self) -> Store:
        return self.store

    @initialize()
    def start(self) -> None:
        self.store = self.open_store()
        self.committed: Model = {}
        self.pending: Model | None = None
        self.block: Any = None
        self.tx: Any = None

    @precondition(lambda self: self.pending is None)
    @rule()
    def begin(self) -> None:
        self.block = self.store.write()
        self.tx = self.block.__enter__()
        self.pending = dict(self.committed)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def commit(self) -> None:
        self.block.__exit__(None, None, None)
        assert self.pending is not None
        self.committed, self.pending = self.pending, None

    @precondition(lambda self: self.pending is not None)
    @rule()
    def roll_back(self) -> None:
        error = RuntimeError("abandoned")
        self.block.__exit__(RuntimeError, error, None)
        self.pending = None

    @precondition(lambda self: self.pending is None)
    @rule()
    def open_again(self) -> None:
        self.store = self.reopen()

    @precondition(lambda self: self.pending is not None)
    @rule(table=TABLES, key=KEYS, value=VALUES, group=GROUPS, order=ORDERS)
    def put(self, table: Table, key: bytes, value: bytes, group: bytes, order: int) -> None:
        assert self.pending is not None
        self.tx.put(table, key, value, group=group, order=order)
        self.pending[table, key] = Record(key, value, group, order)

    @precondition(lambda self: self.pending is not None)
    @rule(table=TABLES, key=KEYS)
    def delete(self, table: Table, key: bytes) -> None:
        assert self.pending is not None
        self.tx.delete(table, key)
        self.pending.pop((table, key), None)

    @precondition(lambda self: self.pending is not None)
    @rule(table=TABLES, group=GROUPS)
    def delete_group(self, table: Table, group: bytes) -> None:
        doomed = self.expected(table, group)
        assert self.tx.delete_group(table, group) == len(doomed)
        self.forget(table, doomed)

    @precondition(lambda self: self.pending is not None)
    @rule(table=TABLES, order=ORDERS, limit=LIMITS)
    def delete_before(self, table: Table, order: int, limit: int | None) -> None:
        older = [record for record in self.expected(table, None) if record.order < order]
        number = len(older) if limit is None else min(limit, len(older))
        assert self.tx.delete_before(table, order, limit=limit) == number
        # Which of several with the same order go first is left to the store.
        left = {record.key for record in self.tx.scan(table)}
        gone = [record for record in older if record.key not in left]
        assert [record.order for record in gone] == [record.order for record in older[:number]]
        self.forget(table, gone)

    @invariant()
    def everything_agrees(self) -> None:
        if self.pending is not None:
            self.compare(self.tx)
        else:
            with self.store.read() as view:
                self.compare(view)

    def teardown(self) -> None:
        if self.pending is not None:
            self.roll_back()
        self.store.close()

    def compare(self, view: Any) -> None:
        for table in (Table.SESSIONS, Table.SKIPPED_KEYS):
            for group in (None, b"", b"a", b"g" * 255):
                expected = self.expected(table, group)
                assert list(view.scan(table, group)) == expected
                assert list(view.scan(table, group, limit=2)) == expected[:2]
                assert list(view.scan(table, group, limit=2, newest_first=True)) == expected[::-1][:2]
                assert view.count(table, group) == len(expected)
                if group is not None:
                    within = [record for record in expected if -1 <= record.order <= 1]
                    assert list(view.scan_range(table, group, (-1, 1))) == within
                    assert list(view.scan_range(table, group, (-1, 1), limit=2)) == within[:2]
                    newest = list(view.scan_range(table, group, (-1, 1), limit=2, newest_first=True))
                    assert newest == within[::-1][:2]
            for record in self.expected(table, None):
                assert view.get(table, record.key) == record.value

    def expected(self, table: Table, group: bytes | None) -> list[Record]:
        model = self.committed if self.pending is None else self.pending
        records = [record for (of, _), record in model.items() if of is table and group in (None, record.group)]
        return sorted(records, key=lambda record: (record.order, record.key))

    def forget(self, table: Table, records: list[Record]) -> None:
        assert self.pending is not None
        for record in records:
            del self.pending[table, record.key]
