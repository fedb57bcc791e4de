"""Attacks on the file of a store by someone who can read or write it but does not know what opens it."""

import hashlib
import logging
import random
import shutil
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from e2ee.errors import CorruptStateError, StateError, WrongPassphraseError
from e2ee.ports import Record, Table
from e2ee.stores.sqlite import SqliteStore
from tests.store_files import CHEAP, KEY, contents, files

Contents = dict[Table, list[Record]]
TABLES = (Table.SESSIONS, Table.SKIPPED_KEYS, Table.INBOUND)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store whose tables hold records of the same keys, groups and orders, but not of the same values."""
    path = tmp_path / "store"
    with SqliteStore.create(path, key=KEY) as store, store.write() as tx:
        for table in TABLES:
            for number in range(12):
                value = f"{table.label} {number}".encode() * (1 + 40 * (number % 4))
                tx.put(table, b"key %d" % number, value, group=b"group %d" % (number % 3), order=number)
    return path


def tamper(path: Path, *statements: str) -> None:
    """Do what anyone with the file can do."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def column(path: Path, query: str) -> bytes:
    """Read one column of one row, as anyone with the file can."""
    connection = sqlite3.connect(path)
    value: bytes = connection.execute(query).fetchone()[0]
    connection.close()
    return value


def read_all(path: Path) -> Contents:
    with SqliteStore.open(path, key=KEY) as store:
        return contents(store)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {t} SET sealed = (SELECT sealed FROM {t} WHERE ord = 7) WHERE ord = 4",
        "UPDATE {t} SET id = (SELECT id FROM skipped_keys WHERE ord = 4) WHERE ord = 4",
        "UPDATE {t} SET id = randomblob(16) WHERE ord = 4",
        "UPDATE {t} SET grp = (SELECT grp FROM {t} WHERE ord = 5) WHERE ord = 4",
        "UPDATE {t} SET ord = 400 WHERE ord = 4",
        "UPDATE {t} SET sealed = (SELECT sealed FROM skipped_keys WHERE ord = 4) WHERE ord = 4",
        "UPDATE {t} SET sealed = zeroblob(0) WHERE ord = 4",
        "UPDATE {t} SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE ord = 4",
        "UPDATE {t} SET sealed = 'text' WHERE ord = 4",
        "UPDATE {t} SET sealed = 5 WHERE ord = 4",
        "UPDATE {t} SET ord = 'text' WHERE ord = 4",
        "UPDATE {t} SET grp = 1.5 WHERE ord = 4",
        "INSERT INTO {t} SELECT randomblob(16), grp, ord, sealed FROM {t} WHERE ord = 4",
        "INSERT INTO {t} SELECT randomblob(16), grp, ord, sealed FROM inbound WHERE ord = 4",
    ],
)
def test_a_row_that_was_moved_swapped_or_copied_does_not_open(path: Path, statement: str) -> None:
    tamper(path, statement.format(t="sessions"))
    with SqliteStore.open(path, key=KEY) as store, store.read() as view:
        with pytest.raises(CorruptStateError):
            view.scan(Table.SESSIONS)
        # The rest of the store still serves.
        assert view.get(Table.SESSIONS, b"key 1") is not None
        assert len(view.scan(Table.SKIPPED_KEYS)) == 12


def test_two_records_that_change_places_both_fail(path: Path) -> None:
    tamper(
        path,
        "CREATE TEMP TABLE held AS SELECT sealed FROM sessions WHERE ord = 4",
        "UPDATE sessions SET sealed = (SELECT sealed FROM sessions WHERE ord = 7) WHERE ord = 4",
        "UPDATE sessions SET sealed = (SELECT sealed FROM held) WHERE ord = 7",
    )
    with SqliteStore.open(path, key=KEY) as store, store.read() as view:
        for key in (b"key 4", b"key 7"):
            with pytest.raises(CorruptStateError):
                view.get(Table.SESSIONS, key)


def test_records_of_another_store_under_the_same_key_do_not_open(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    SqliteStore.create(other, key=KEY).close()
    tamper(other, f"ATTACH '{path}' AS source", "INSERT INTO main.sessions SELECT * FROM source.sessions")
    with SqliteStore.open(other, key=KEY) as store, store.read() as view:
        assert view.get(Table.SESSIONS, b"key 4") is None
        with pytest.raises(CorruptStateError):
            view.scan(Table.SESSIONS)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER keep AFTER DELETE ON sessions BEGIN INSERT INTO inbound VALUES (old.id, old.grp, 0, x''); END",
        "CREATE VIEW seen AS SELECT * FROM sessions",
        "CREATE TABLE more (id)",
        "CREATE INDEX slow ON sessions (sealed)",
        "DROP INDEX sessions_by_group",
        "DROP TABLE sessions",
        "ALTER TABLE sessions RENAME COLUMN sealed TO opened",
        "DELETE FROM store",
        "UPDATE store SET header = 'text'",
        "UPDATE store SET header = zeroblob(100000)",
        "PRAGMA application_id = 1",
    ],
)
def test_a_schema_with_anything_planted_or_missing_is_refused(path: Path, statement: str) -> None:
    tamper(path, statement)
    with pytest.raises(CorruptStateError):
        SqliteStore.open(path, key=KEY)


def test_a_hostile_header_cannot_demand_memory_or_time(tmp_path: Path) -> None:
    path = tmp_path / "store"
    SqliteStore.create(path, passphrase="right", cost=CHEAP).close()
    header = column(path, "SELECT header FROM store")
    for numbers in [(0xFFFFFFFF, 1, 1), (8, 0xFFFFFFFF, 1), (1 << 20, 1, 1 << 16)]:
        body = header[:12] + b"".join(number.to_bytes(4, "big") for number in numbers) + header[24:-8]
        tamper(path, f"UPDATE store SET header = x'{(body + hashlib.sha256(body).digest()[:8]).hex()}'")
        with pytest.raises(CorruptStateError, match="cost"):
            SqliteStore.open(path, passphrase="right")


def test_no_flipped_byte_yields_a_wrong_value(path: Path, tmp_path: Path) -> None:
    before, whole = read_all(path), path.read_bytes()
    rng = random.Random(3)
    in_use = [position for position, byte in enumerate(whole) if byte]
    positions = [*range(100), *rng.sample(in_use, 500), *rng.sample(range(len(whole)), 200)]
    noticed = survive_flips(whole, positions, rng, lambda: read_all(path) == before, path)
    # Most of what is in use was noticed; the rest (unused fields of the database's header, say) changes nothing.
    assert noticed > 400


def test_no_flipped_byte_of_the_log_yields_a_state_that_never_was(path: Path) -> None:
    states: list[Contents] = []
    with SqliteStore.open(path, key=KEY) as store:
        for number in range(4):
            states.append(contents(store))
            with store.write() as tx:
                tx.put(Table.SESSIONS, b"key 1", b"step %d" % number, group=b"group", order=1)
                tx.delete(Table.INBOUND, b"key %d" % number)
        states.append(contents(store))
        whole, log = path.read_bytes(), path.with_name("store-wal").read_bytes()
    rng = random.Random(5)

    def is_a_state() -> bool:
        path.write_bytes(whole)
        return read_all(path) in states

    survive_flips(log, rng.sample(range(len(log)), 300), rng, is_a_state, path.with_name("store-wal"))


def survive_flips(whole: bytes, positions: list[int], rng: random.Random, holds: Callable[[], bool], file: Path) -> int:
    """Flip one byte at a time; each time either a named error comes or `holds` does. Return how many errors came."""
    noticed = 0
    for position in positions:
        flipped = bytearray(whole)
        flipped[position] ^= rng.randrange(1, 256)
        file.write_bytes(flipped)
        try:
            assert holds(), f"byte {position} changed what is read"
        except StateError:
            noticed += 1
    return noticed


def test_nothing_of_what_is_stored_stands_in_the_files(tmp_path: Path) -> None:
    needles = [b"needle-key-alice", b"needle-group-bob", b"needle-value-message", b"needle-passphrase"]
    key, group, value, passphrase = needles
    seen: list[dict[str, bytes]] = []
    with SqliteStore.create(tmp_path / "store", passphrase=passphrase.decode(), cost=CHEAP) as store:
        for _ in range(3):
            with store.write() as tx:
                for table in Table:
                    tx.put(table, key, value * 50, group=group, order=9)
            seen.append(files(tmp_path))
            with store.write() as tx:
                tx.delete_group(Table.SESSIONS, group)
        seen.append(files(tmp_path))
    seen.append(files(tmp_path))
    for content in (content for each in seen for content in each.values()):
        assert not any(needle in content for needle in needles)


def test_the_key_of_the_application_does_not_stand_in_the_files(tmp_path: Path) -> None:
    SqliteStore.create(tmp_path / "store", key=KEY).close()
    for content in files(tmp_path).values():
        assert KEY not in content
        assert hashlib.sha256(KEY).digest() not in content


def test_the_same_record_is_never_sealed_to_the_same_bytes(path: Path) -> None:
    """Deterministic initialisation vectors at rest let whoever sees two versions of a file tell what changed."""
    sealed: set[bytes] = set()
    for _ in range(5):
        with SqliteStore.open(path, key=KEY) as store, store.write() as tx:
            tx.put(Table.SESSIONS, b"key", b"value")
        sealed.add(column(path, "SELECT sealed FROM sessions ORDER BY rowid DESC LIMIT 1"))
    assert len(sealed) == 5


def test_two_stores_of_one_passphrase_share_no_index(tmp_path: Path) -> None:
    """Were blind indexes derived from the passphrase alone, two stores would show that they know the same people."""
    ids: list[bytes] = []
    for name in ("one", "two"):
        with SqliteStore.create(tmp_path / name, passphrase="same", cost=CHEAP) as store, store.write() as tx:
            tx.put(Table.CONTACTS, b"alice", b"", group=b"friends")
        ids += [column(tmp_path / name, f"SELECT {blind} FROM contacts") for blind in ("id", "grp")]
    assert len(set(ids)) == 4


def test_no_secret_is_in_a_text_an_error_or_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path, passphrase, value = tmp_path / "store", "needle-passphrase", b"needle-value"
    texts: list[str] = []
    with SqliteStore.create(path, passphrase=passphrase, cost=CHEAP) as store:
        with store.write() as tx:
            tx.put(Table.SESSIONS, b"needle-key", value)
        texts += [repr(store), str(store), repr(store.read()), repr(store.write())]
    shutil.copy(path, tmp_path / "copy")
    tamper(path, "UPDATE sessions SET ord = 5")
    with (
        pytest.raises(CorruptStateError) as damaged,
        SqliteStore.open(path, passphrase=passphrase) as store,
        store.read() as view,
    ):
        view.get(Table.SESSIONS, b"needle-key")
    with pytest.raises(WrongPassphraseError) as wrong:
        SqliteStore.open(tmp_path / "copy", passphrase="needle-other")
    for error in (damaged.value, wrong.value):
        texts += ["".join(traceback.format_exception(error)), repr(error), str(error)]
    texts.append(caplog.text)
    # The lines of this test that a traceback quotes hold the names of variables, not their values.
    assert not any(secret in text for text in texts for secret in ("needle-passphrase", "needle-value", "6e6565646c65"))


@pytest.mark.timeout(60)
def test_a_view_planted_in_place_of_the_header_is_refused_before_it_is_asked(path: Path) -> None:
    endless = "WITH RECURSIVE r(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM r) SELECT n AS one, x'00' AS header FROM r"
    tamper(path, "ALTER TABLE store RENAME TO moved", f"CREATE VIEW store AS {endless}")
    with pytest.raises(CorruptStateError):
        SqliteStore.open(path, key=KEY)
