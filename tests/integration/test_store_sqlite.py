"""The encrypted store keeps the contract, in a file of its own."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from e2ee.errors import CorruptStateError, StoreLockedError, StoreUnavailableError, WrongPassphraseError
from e2ee.ports import Store, Table
from e2ee.stores.sqlite import SqliteStore
from e2ee.stores.sqlite_lock import FileLock
from tests.contract.store_contract import StoreContract
from tests.contract.store_machine import StoreMachine
from tests.store_files import CHEAP, KEY, contents, files


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with SqliteStore.create(tmp_path / "store", key=KEY) as store:
            yield store


class SqliteStoreMachine(StoreMachine):
    def open_store(self) -> Store:
        self.directory = tempfile.TemporaryDirectory()
        return SqliteStore.create(Path(self.directory.name) / "store", key=KEY)

    def reopen(self) -> Store:
        self.store.close()
        return SqliteStore.open(Path(self.directory.name) / "store", key=KEY)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


TestSqliteStoreMachine = SqliteStoreMachine.TestCase
TestSqliteStoreMachine.settings = settings(max_examples=40, stateful_step_count=30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def put(store: SqliteStore, value: bytes) -> None:
    with store.write() as tx:
        tx.put(Table.SESSIONS, b"key", value, group=b"group", order=3)


def value_of(store: SqliteStore) -> bytes | None:
    with store.read() as view:
        return view.get(Table.SESSIONS, b"key")


def test_what_one_opening_commits_the_next_one_reads(path: Path) -> None:
    with SqliteStore.create(path, passphrase="right", cost=CHEAP) as store:
        put(store, b"first")
    with SqliteStore.open(path, passphrase="right") as store:
        assert value_of(store) == b"first"
        put(store, b"second")
    with SqliteStore.open(path, passphrase="right") as store:
        assert value_of(store) == b"second"


def test_the_files_are_readable_by_their_owner_only(path: Path) -> None:
    SqliteStore.create(path, key=KEY).close()
    with SqliteStore.open(path, key=KEY) as store:
        put(store, b"value")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"store": 0o600, "store-wal": 0o600, "store.lock": 0o600}


def test_a_closed_store_is_one_file_and_its_lock(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        put(store, b"value")
    assert set(files(path.parent)) == {"store", "store.lock"}


def test_creating_never_replaces_what_is_there(path: Path) -> None:
    for existing in (b"", b"something else"):
        path.write_bytes(existing)
        with pytest.raises(StoreUnavailableError):
            SqliteStore.create(path, key=KEY)
        assert path.read_bytes() == existing
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(StoreUnavailableError):
        SqliteStore.create(path, key=KEY)
    assert not (path.parent / "elsewhere").exists()


def test_creating_goes_on_after_a_crash_in_the_middle_of_creating(path: Path) -> None:
    path.with_name("store.new").write_bytes(b"half a store")
    path.with_name("store.new-journal").write_bytes(b"its journal")
    with SqliteStore.create(path, key=KEY) as store:
        put(store, b"value")
    assert set(files(path.parent)) == {"store", "store.lock"}


@pytest.mark.parametrize("arguments", [{}, {"passphrase": "x", "key": KEY}, {"key": KEY[:31]}, {"passphrase": ""}])
def test_bad_arguments_leave_no_file(path: Path, arguments: dict) -> None:
    with pytest.raises(ValueError):
        SqliteStore.create(path, **arguments)
    assert not SqliteStore.exists(path)


def test_opening_what_is_missing_names_it_and_leaves_no_file(path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="store"):
        SqliteStore.open(path, key=KEY)
    with pytest.raises(StoreUnavailableError, match="missing"):
        SqliteStore.create(path.parent / "missing" / "store", key=KEY)
    assert files(path.parent) == {}


def test_a_wrong_passphrase_changes_no_byte_and_the_right_one_still_opens(path: Path) -> None:
    with SqliteStore.create(path, passphrase="right", cost=CHEAP) as store:
        put(store, b"value")
    before = files(path.parent)
    with pytest.raises(WrongPassphraseError):
        SqliteStore.open(path, passphrase="wrong")
    with pytest.raises(WrongPassphraseError):
        SqliteStore.open(path, key=KEY)
    assert files(path.parent) == before
    with SqliteStore.open(path, passphrase="right") as store:
        assert value_of(store) == b"value"


def test_a_changed_passphrase_opens_and_the_old_one_does_not(path: Path) -> None:
    with SqliteStore.create(path, passphrase="old", cost=CHEAP) as store:
        put(store, b"value")
        with pytest.raises(WrongPassphraseError):
            store.change_passphrase("wrong", "new", cost=CHEAP)
        with pytest.raises(ValueError):
            store.change_passphrase("old", "", cost=CHEAP)
        store.change_passphrase("old", "new", cost=CHEAP)
        put(store, b"later")
    with pytest.raises(WrongPassphraseError):
        SqliteStore.open(path, passphrase="old")
    with SqliteStore.open(path, passphrase="new") as store:
        assert value_of(store) == b"later"


def test_a_store_is_open_once_at_a_time_also_within_one_process(path: Path) -> None:
    store = SqliteStore.create(path, key=KEY)
    with pytest.raises(StoreLockedError):
        SqliteStore.open(path, key=KEY)
    with pytest.raises(StoreLockedError):
        SqliteStore.open(path, key=KEY, wait=0.05)
    put(store, b"value")
    store.close()
    with SqliteStore.open(path, key=KEY) as again:
        assert value_of(again) == b"value"


def test_the_lock_file_keeps_others_out_before_they_look_at_the_store(path: Path) -> None:
    """SQLite's own lock begins to hold only when the file is read, and cannot guard a file that is being made."""
    lock = FileLock(path.with_name("store.lock"), wait=0.0)
    with pytest.raises(StoreLockedError):
        SqliteStore.create(path, key=KEY)
    path.write_bytes(b"being made")
    with pytest.raises(StoreLockedError):
        SqliteStore.open(path, key=KEY)
    lock.release()
    lock.release()
    path.unlink()
    SqliteStore.create(path, key=KEY).close()


def test_a_failed_opening_leaves_the_store_unlocked(path: Path) -> None:
    SqliteStore.create(path, passphrase="right", cost=CHEAP).close()
    for _ in range(2):
        with pytest.raises(WrongPassphraseError):
            SqliteStore.open(path, passphrase="wrong")


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0", b"not a database at all" * 1_000])
def test_a_file_that_is_no_store_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptStateError):
        SqliteStore.open(path, key=KEY)
    assert path.read_bytes() == content


def test_paths_with_characters_that_mean_something_in_uris_are_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=ro#%41"
    with SqliteStore.create(path, key=KEY) as store:
        put(store, b"value")
    with SqliteStore.open(str(path), key=KEY) as store:
        assert value_of(store) == b"value"
    assert set(files(tmp_path)) == {path.name, path.name + ".lock"}


def test_a_large_store_is_read_back_record_by_record(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        with store.write() as tx:
            for number in range(3_000):
                key, group = number.to_bytes(4, "big"), b"%d" % (number % 7)
                tx.put(Table.MESSAGE_IDS, key, bytes(number % 300), group=group, order=-number)
        before = contents(store)
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == before
        with store.write() as tx:
            assert tx.delete_before(Table.MESSAGE_IDS, -2_000, limit=500) == 500
            assert tx.delete_before(Table.MESSAGE_IDS, -2_000) == 499
            assert [record.order for record in tx.scan(Table.MESSAGE_IDS, limit=2)] == [-2_000, -1_999]
