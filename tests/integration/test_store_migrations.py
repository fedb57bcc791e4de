"""Stores of other versions: older ones are brought up to date step by step, newer ones are refused."""

import sqlite3
from pathlib import Path

import pytest

from e2ee.errors import CorruptStateError, StateError, StoreVersionError
from e2ee.ports import Record, Table
from e2ee.stores import sqlite_schema
from e2ee.stores.sqlite import SqliteStore
from e2ee.stores.sqlite_keyring import DataKey
from e2ee.stores.sqlite_sealing import TableCipher
from tests.store_files import KEY, contents

CURRENT = len(sqlite_schema.MIGRATIONS)
RECORDS = [Record(b"%d" % number, b"old %d" % number, b"group", number) for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of the current version with some records."""
    path = tmp_path / "store"
    with SqliteStore.create(path, key=KEY) as store, store.write() as tx:
        for record in RECORDS:
            tx.put(Table.OUTBOX, record.key, record.value, group=record.group, order=record.order)
    return path


def rewrite_outbox(connection: sqlite3.Connection, data_key: DataKey) -> None:
    """What a later migration might do: open every record of a table, change it and seal it again."""
    cipher = TableCipher(data_key, "outbox", 1)
    for row in connection.execute("SELECT id, grp, ord, sealed FROM outbox").fetchall():
        record = cipher.open(row)
        changed = cipher.seal(record._replace(value=record.value.replace(b"old", b"new")))
        connection.execute("UPDATE outbox SET sealed = ? WHERE id = ?", (changed.sealed, changed.id))


def fail_half_way(connection: sqlite3.Connection, _data_key: DataKey) -> None:
    connection.execute("DELETE FROM outbox WHERE ord < 3")
    raise sqlite3.OperationalError("disk I/O error")


def values(path: Path) -> list[bytes]:
    with SqliteStore.open(path, key=KEY) as store:
        return [record.value for record in contents(store)[Table.OUTBOX]]


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return version


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def release_with(monkeypatch: pytest.MonkeyPatch, *steps: "sqlite_schema.Migration") -> None:
    """Pretend to be a later release that has further migrations."""
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, *steps))


def test_a_new_store_has_the_current_version(path: Path) -> None:
    assert version_of(path) == len(sqlite_schema.MIGRATIONS)


def test_an_older_store_is_migrated_once_when_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release_with(monkeypatch, rewrite_outbox)
    for _ in range(2):
        assert values(path) == [b"new %d" % number for number in range(5)]
        assert version_of(path) == CURRENT + 1


def test_a_migration_that_fails_changes_nothing_and_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as attempt:
        release_with(attempt, fail_half_way)
        with pytest.raises(StateError):
            SqliteStore.open(path, key=KEY)
    assert version_of(path) == CURRENT
    assert values(path) == [record.value for record in RECORDS]
    release_with(monkeypatch, rewrite_outbox)
    assert values(path) == [b"new %d" % number for number in range(5)]


def test_steps_before_the_failing_one_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as attempt:
        release_with(attempt, rewrite_outbox, fail_half_way)
        with pytest.raises(StateError):
            SqliteStore.open(path, key=KEY)
    assert version_of(path) == CURRENT + 1
    release_with(monkeypatch, rewrite_outbox, lambda _connection, _data_key: None)
    assert values(path) == [b"new %d" % number for number in range(5)]
    assert version_of(path) == CURRENT + 2


def test_a_store_of_version_4_is_brought_to_version_5_without_the_words_that_waited_in_its_history(path: Path) -> None:
    with SqliteStore.open(path, key=KEY) as store, store.write() as tx:
        for group in (b"early", b"a conversation"):
            tx.put(Table.HISTORY, group, b"value", group=group, order=1)
    connection = sqlite3.connect(path)
    for table in (Table.REMOVED_DEVICES, Table.FAILED_SENDS, Table.EARLY_WORDS):
        connection.execute(f"DROP TABLE {table.label}")
    connection.commit()
    connection.close()
    set_version(path, 4)
    with SqliteStore.open(path, key=KEY) as store:
        assert [record.group for record in contents(store)[Table.HISTORY]] == [b"a conversation"]
    assert version_of(path) == CURRENT
    assert values(path) == [record.value for record in RECORDS]


def test_a_store_of_a_newer_release_is_refused_before_the_passphrase_is_tried(path: Path) -> None:
    set_version(path, 7)
    before = path.read_bytes()
    with pytest.raises(StoreVersionError) as caught:
        SqliteStore.open(path, passphrase="any")
    assert (caught.value.found, caught.value.supported) == (7, CURRENT)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_was_never_released_is_damage(path: Path, version: int) -> None:
    set_version(path, version)
    with pytest.raises(CorruptStateError):
        SqliteStore.open(path, key=KEY)


def test_a_migration_that_leaves_another_schema_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_a_column(connection: sqlite3.Connection, _data_key: DataKey) -> None:
        connection.execute("ALTER TABLE outbox ADD COLUMN extra BLOB")

    release_with(monkeypatch, add_a_column)
    with pytest.raises(CorruptStateError):
        SqliteStore.open(path, key=KEY)
