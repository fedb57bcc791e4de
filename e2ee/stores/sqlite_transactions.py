"""Transactions on the encrypted store: records in and out, by the statements of their table.

Owns: what `e2ee.ports` promises about reading and writing records.
Does not know about: the database library; `Database` runs the statements and translates errors.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, final

from e2ee.errors import CorruptStateError
from e2ee.ports import Record, Table
from e2ee.stores.rules import check_limit, check_order, check_range, check_record
from e2ee.stores.sqlite_schema import Statements
from e2ee.stores.sqlite_sealing import TableCipher

if TYPE_CHECKING:
    from e2ee.stores.sqlite import Database


class Shelf(NamedTuple):
    """What the records of one table are reached with."""

    sql: Statements
    cipher: TableCipher


class SqliteReadTransaction:
    """See `e2ee.ports.ReadTransaction`."""

    __slots__ = ("_database", "_is_open", "_shelves")

    def __init__(self, database: "Database", shelves: Mapping[Table, Shelf]) -> None:
        self._database = database
        self._shelves = shelves
        self._is_open = False

    def __enter__(self) -> Self:
        self._database.begin("BEGIN")
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._database.end(commit=False)

    def get(self, table: Table, key: bytes) -> bytes | None:
        sql, cipher = self._shelf(table)
        rows = self._database.rows(sql.get, (cipher.row_id(key),))
        if not rows:
            return None
        record = cipher.open(rows[0])
        if record.key != key:
            raise CorruptStateError("a record lies under the index of another")
        return record.value

    def scan(
        self, table: Table, group: bytes | None = None, *, limit: int | None = None, newest_first: bool = False
    ) -> Sequence[Record]:
        check_limit(limit)
        sql, cipher = self._shelf(table)
        scope = () if group is None else (cipher.row_group(group),)
        if limit is None:
            rows = self._database.rows(sql.scan if group is None else sql.scan_group, scope)
        elif limit == 0:
            return []
        else:
            if group is None:
                limited = sql.scan_newest if newest_first else sql.scan_oldest
            else:
                limited = sql.scan_group_newest if newest_first else sql.scan_group_oldest
            rows = self._database.rows(limited, (*scope, limit - 1))
        return _opened(cipher, rows, group, newest_first)[:limit]

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
        if limit == 0:
            return []
        sql, cipher = self._shelf(table)
        scope = cipher.row_group(group), *within
        if limit is None:
            rows = self._database.rows(sql.scan_range, scope)
        else:
            limited = sql.scan_range_newest if newest_first else sql.scan_range_oldest
            rows = self._database.rows(limited, (*scope, limit - 1))
        return _opened(cipher, rows, group, newest_first)[:limit]

    def count(self, table: Table, group: bytes | None = None) -> int:
        sql, cipher = self._shelf(table)
        if group is None:
            rows = self._database.rows(sql.count_all, ())
        else:
            rows = self._database.rows(sql.count_group, (cipher.row_group(group),))
        number = rows[0][0]
        assert isinstance(number, int)  # noqa: S101  # count(*) is nothing else; this tells the type checker
        return number

    def _shelf(self, table: Table) -> Shelf:
        if not self._is_open:
            raise RuntimeError("the transaction is not open")
        return self._shelves[table]


@final
class SqliteTransaction(SqliteReadTransaction):
    """See `e2ee.ports.Transaction`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        self._database.begin("BEGIN IMMEDIATE")
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._database.end(commit=kind is None)

    def put(self, table: Table, key: bytes, value: bytes, *, group: bytes = b"", order: int = 0) -> None:
        sql, cipher = self._shelf(table)
        check_record(key, group, order)
        row = cipher.seal(Record(key, value, group, order))
        if self._database.change(sql.update, row) == 0:
            self._database.change(sql.upsert, row)

    def delete(self, table: Table, key: bytes) -> None:
        sql, cipher = self._shelf(table)
        self._database.change(sql.delete, (cipher.row_id(key),))

    def delete_group(self, table: Table, group: bytes) -> int:
        sql, cipher = self._shelf(table)
        return self._database.change(sql.delete_group, (cipher.row_group(group),))

    def delete_before(self, table: Table, order: int, *, limit: int | None = None) -> int:
        check_order(order)
        check_limit(limit)
        sql, _ = self._shelf(table)
        return self._database.change(sql.delete_before, (order, -1 if limit is None else limit))


def _opened(
    cipher: TableCipher, rows: Sequence[tuple[object, ...]], group: bytes | None, newest_first: bool
) -> list[Record]:
    """Return the records of some rows, which must be of one group unless it is None."""
    records = [cipher.open(row) for row in rows]
    if group is not None and any(record.group != group for record in records):
        raise CorruptStateError("a record lies under the group of others")
    return sorted(records, key=_by_order_then_key, reverse=newest_first)


def _by_order_then_key(record: Record) -> tuple[int, bytes]:
    return record.order, record.key
