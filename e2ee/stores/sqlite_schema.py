"""The tables of a store in SQLite: their SQL, versions and migrations.

Owns: every SQL string, the schema a file must have to be trusted, the steps from version to version.
Does not know about: transactions of the application, locks, encryption of records (a migration gets the data key).

A migration must leave the very statements of `CANONICAL` behind; where ALTER TABLE would write another text, it renames
the old table away, creates the new one, copies and drops.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from e2ee.errors import CorruptStateError, StoreUnavailableError, StoreVersionError
from e2ee.ports import Table
from e2ee.stores.sqlite_keyring import DataKey
from e2ee.stores.sqlite_sealing import TableCipher

if TYPE_CHECKING:
    # For types alone: stores/sqlite.py is the one module that talks to the database library.
    import sqlite3

    Migration = Callable[[sqlite3.Connection, DataKey], None]

_UNREAD_PAGE: Final = re.compile(rb"(failed|unable) to get (the )?page")

APPLICATION_ID: Final = int.from_bytes(b"E2EE", "big")

_HEADER_SQL: Final = "SELECT type, sql FROM sqlite_master WHERE name = 'store'"
SELECT_HEADER: Final = "SELECT header FROM store WHERE one = 1"
INSERT_HEADER: Final = "INSERT INTO store (one, header) VALUES (1, ?)"
UPDATE_HEADER: Final = "UPDATE store SET header = ? WHERE one = 1"

_HEADER_TABLE: Final = "CREATE TABLE store (one INTEGER PRIMARY KEY, header BLOB NOT NULL)"
# Not WITHOUT ROWID: sessions and bodies are larger than such a table keeps on one page, and an update of one would
# write four pages to the log instead of one.
_TABLE: Final = (
    "CREATE TABLE {label} (id BLOB PRIMARY KEY NOT NULL, grp BLOB NOT NULL, ord INTEGER NOT NULL, sealed BLOB NOT NULL)"
)
_INDEX: Final = "CREATE INDEX {label}_by_group ON {label} (grp, ord)"

CANONICAL: Final = {
    "store": _HEADER_TABLE,
    **{table.label: _TABLE.format(label=table.label) for table in Table},
    **{f"{table.label}_by_group": _INDEX.format(label=table.label) for table in Table},
}
"""Each object that a file of the current version holds, and the statement that made it."""


class Statements(NamedTuple):
    """The SQL of one table."""

    get: str
    update: str
    upsert: str
    delete: str
    delete_group: str
    delete_before: str
    count_all: str
    count_group: str
    scan: str
    scan_oldest: str
    scan_newest: str
    scan_group: str
    scan_group_oldest: str
    scan_group_newest: str
    scan_range: str
    scan_range_oldest: str
    scan_range_newest: str


_ROWS = "SELECT id, grp, ord, sealed FROM {label}"
# Ties at the limit are all returned, because only the caller, who can read the keys, can say which of them come first.
_OLDEST = "ord <= coalesce((SELECT ord FROM {label} {scope} ORDER BY ord LIMIT 1 OFFSET {offset}), 9223372036854775807)"
_NEWEST = (
    "ord >= coalesce((SELECT ord FROM {label} {scope} ORDER BY ord DESC LIMIT 1 OFFSET {offset}), -9223372036854775808)"
)
_ALL = {"scope": "", "offset": "?1"}
_GROUP = {"scope": "WHERE grp = ?1", "offset": "?2"}
_IN_RANGE = "grp = ?1 AND ord BETWEEN ?2 AND ?3"
_RANGE = {"scope": f"WHERE {_IN_RANGE}", "offset": "?4"}

_TEMPLATES: Final = Statements(
    get=f"{_ROWS} WHERE id = ?",
    # Tried before `upsert`: it leaves the index alone, which is one page less to write for each step of a session.
    update="UPDATE {label} SET sealed = ?4 WHERE id = ?1 AND grp = ?2 AND ord = ?3",
    upsert=(
        "INSERT INTO {label} (id, grp, ord, sealed) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET grp = excluded.grp, ord = excluded.ord, sealed = excluded.sealed"
    ),
    delete="DELETE FROM {label} WHERE id = ?",
    delete_group="DELETE FROM {label} WHERE grp = ?",
    # Hops from group to group in the index, so that only the rows to delete are read, not the whole table.
    delete_before=(
        "DELETE FROM {label} WHERE rowid IN (WITH RECURSIVE groups (grp) AS (SELECT min(grp) FROM {label} UNION ALL "
        "SELECT (SELECT min(grp) FROM {label} WHERE grp > groups.grp) FROM groups WHERE groups.grp IS NOT NULL) "
        "SELECT old.rowid FROM groups CROSS JOIN {label} AS old ON old.grp = groups.grp "
        "WHERE old.ord < ? ORDER BY old.ord LIMIT ?)"
    ),
    count_all="SELECT count(*) FROM {label}",
    count_group="SELECT count(*) FROM {label} WHERE grp = ?",
    scan=_ROWS,
    scan_oldest=f"{_ROWS} WHERE {_OLDEST.format(label='{label}', **_ALL)}",
    scan_newest=f"{_ROWS} WHERE {_NEWEST.format(label='{label}', **_ALL)}",
    scan_group=f"{_ROWS} WHERE grp = ?1",
    scan_group_oldest=f"{_ROWS} WHERE grp = ?1 AND {_OLDEST.format(label='{label}', **_GROUP)}",
    scan_group_newest=f"{_ROWS} WHERE grp = ?1 AND {_NEWEST.format(label='{label}', **_GROUP)}",
    scan_range=f"{_ROWS} WHERE {_IN_RANGE}",
    scan_range_oldest=f"{_ROWS} WHERE {_IN_RANGE} AND {_OLDEST.format(label='{label}', **_RANGE)}",
    scan_range_newest=f"{_ROWS} WHERE {_IN_RANGE} AND {_NEWEST.format(label='{label}', **_RANGE)}",
)

STATEMENTS: Final = {
    table: Statements(*(template.format(label=table.label) for template in _TEMPLATES)) for table in Table
}


_TABLES_OF_VERSION_2: Final = ("sent", "resends", "healing", "dropped", "owed_answers")
_TABLES_OF_VERSION_3: Final = ("trust_decisions",)
_TABLES_OF_VERSION_4: Final = ("history", "conversations")
_TABLES_OF_VERSION_5: Final = ("removed_devices", "failed_sends", "early_words")


def _to_version_1(connection: "sqlite3.Connection", _data_key: DataKey) -> None:
    later = _TABLES_OF_VERSION_2 + _TABLES_OF_VERSION_3 + _TABLES_OF_VERSION_4 + _TABLES_OF_VERSION_5
    _create(connection, [table.label for table in Table if table.label not in later])


def _to_version_2(connection: "sqlite3.Connection", _data_key: DataKey) -> None:
    _create(connection, _TABLES_OF_VERSION_2)


def _to_version_3(connection: "sqlite3.Connection", _data_key: DataKey) -> None:
    _create(connection, _TABLES_OF_VERSION_3)


def _to_version_4(connection: "sqlite3.Connection", _data_key: DataKey) -> None:
    _create(connection, _TABLES_OF_VERSION_4)


def _to_version_5(connection: "sqlite3.Connection", data_key: DataKey) -> None:
    _create(connection, _TABLES_OF_VERSION_5)
    # Receipts about messages that had not come yet were a group of the history. They have a table of their own now;
    # the few that wait are not worth carrying over.
    early = TableCipher(data_key, "history", 1).row_group(b"early")
    connection.execute("DELETE FROM history WHERE grp = ?", (early,))


def _create(connection: "sqlite3.Connection", labels: Sequence[str]) -> None:
    for statement in (_TABLE, _INDEX):
        for label in labels:
            connection.execute(statement.format(label=label))


MIGRATIONS: "tuple[Migration, ...]" = (_to_version_1, _to_version_2, _to_version_3, _to_version_4, _to_version_5)
"""The step at position n leads from version n to n + 1. A released step never changes."""


def create_header(connection: "sqlite3.Connection", header: bytes) -> None:
    """Make an empty database a store of version 0: a header and nothing else."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(_HEADER_TABLE)
    connection.execute(INSERT_HEADER, (header,))


def check_version(connection: "sqlite3.Connection") -> int:
    """Return the schema version of the file.

    Raises:
        StoreVersionError: it is above what this release knows.
        CorruptStateError: it is not a store, or of no version that was ever released.
    """
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise CorruptStateError("the file is not a store")
    version = _pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise StoreVersionError(version, len(MIGRATIONS))
    if version < 1:
        raise CorruptStateError("the file has no schema version")
    # The header is read before the rest of the schema can be judged: it must not be a view, whose query may never end.
    if connection.execute(_HEADER_SQL).fetchall() != [(b"table", _HEADER_TABLE.encode())]:
        raise CorruptStateError("the file has no header")
    return version


def migrate(connection: "sqlite3.Connection", version: int, data_key: DataKey) -> None:
    """Bring the schema from `version` to the current one, each step in a transaction of its own."""
    for step in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[step](connection, data_key)
            connection.execute(f"PRAGMA user_version = {step + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check_schema(connection: "sqlite3.Connection") -> None:
    """Compare what the file holds with what this release would have made, and its indexes with its tables.

    A trigger or view planted in the file would run as our own SQL; damage to an index would hide records that are
    there. Rows need no look here: they authenticate when they are read.

    Raises:
        CorruptStateError: there is any difference.
        StoreUnavailableError: the disk refused to read all of it, which says nothing about what it holds.
    """
    # Text comes out as bytes (sqlite.py sets it so), because damaged text may not be UTF-8.
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if sorted(found) != sorted((name.encode(), sql.encode()) for name, sql in CANONICAL.items()):
        raise CorruptStateError("the tables are not those of a store")
    report = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if report != [(b"ok",)]:
        # SQLite counts a page that the disk did not give among its findings; the text is all that tells the two apart.
        if _UNREAD_PAGE.search(report[0][0]):
            raise StoreUnavailableError("reading failed")
        raise CorruptStateError("tables and indexes do not agree")


def _pragma(connection: "sqlite3.Connection", name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
