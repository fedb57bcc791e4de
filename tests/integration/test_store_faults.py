"""Disks that are full or read-only, and files that were cut: a named error each, and what was committed stays."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2ee.errors import CorruptStateError, StateError, StoreUnavailableError
from e2ee.ports import Record, Table
from e2ee.stores.sqlite import SqliteStore
from tests.store_files import KEY, contents, files, python

# Own mount points without being root; as root too, where tests must not mount anything for everybody.
PRIVATE_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")

FILL_DISK = """
import os, subprocess, sys
from e2ee.errors import StoreUnavailableError
from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", sys.argv[1]], check=True)
path, key = sys.argv[1] + "/store", bytes(range(32))
with open(sys.argv[1] + "/other", "wb") as other:
    other.write(bytes(300_000))
store = SqliteStore.create(path, key=key)
committed = 0
try:
    while True:
        with store.write() as tx:
            for part in range(4):
                tx.put(Table.INBOUND, b"%d %d" % (committed, part), bytes(9_000), order=committed)
        committed += 1
except StoreUnavailableError as error:
    print(error)
def orders(store):
    with store.read() as view:
        return sorted(record.order for record in view.scan(Table.INBOUND))
expected = sorted(list(range(committed)) * 4)
assert committed > 2 and orders(store) == expected
with open(sys.argv[1] + "/filler", "wb", buffering=0) as filler:
    try:
        while filler.write(bytes(1_000)) == 1_000:
            pass
    except OSError:
        pass
for _ in range(3):
    try:
        with store.write() as tx:
            tx.put(Table.OUTBOX, b"late", bytes(1_200_000))
    except StoreUnavailableError:
        continue
    raise AssertionError("wrote to a full disk")
store.close()
try:
    SqliteStore.create(sys.argv[1] + "/second", key=key)
except StoreUnavailableError:
    pass
else:
    raise AssertionError("made a store on a full disk")
os.unlink(sys.argv[1] + "/other")
with SqliteStore.open(path, key=key) as store:
    assert orders(store) == expected
    with store.write() as tx:
        tx.delete_before(Table.INBOUND, 2)
        tx.put(Table.OUTBOX, b"late", b"")
print("kept", committed)
"""

USE_READ_ONLY = """
import subprocess, sys
from e2ee.errors import StoreUnavailableError
from e2ee.stores.sqlite import SqliteStore
directory = sys.argv[1]
subprocess.run(["mount", "--bind", directory, directory], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", directory], check=True)
for use in (SqliteStore.open, SqliteStore.create):
    for name in ("store", "other"):
        try:
            use(directory + "/" + name, key=bytes(range(32)))
        except StoreUnavailableError as error:
            print(error)
        else:
            raise AssertionError("used a read-only directory")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the system refuse to let any file grow beyond `size` bytes: a full disk that needs no privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(store: SqliteStore, rounds: int) -> None:
    for number in range(rounds):
        with store.write() as tx:
            for part in range(4):
                tx.put(Table.INBOUND, b"%d %d" % (number, part), bytes(9_000), order=number)


def test_a_transaction_that_no_longer_fits_is_undone_and_the_store_goes_on(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        fill(store, 3)
        before = contents(store)
        with largest_file(path.with_name("store-wal").stat().st_size + 10_000):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    fill(store, 9)
                after = contents(store)
                assert after[Table.INBOUND][: len(before[Table.INBOUND])] == before[Table.INBOUND]
                assert len(after[Table.INBOUND]) % 4 == 0
        fill(store, 9)
        complete = contents(store)
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == complete
        assert len(complete[Table.INBOUND]) == 36


def test_a_transaction_that_swallows_the_error_commits_nothing_of_what_follows(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        before = contents(store)

        def swallow() -> None:
            with store.write() as tx:
                tx.put(Table.COUNTERS, b"before", b"")
                try:
                    with largest_file(1_000):
                        for number in range(2_000):
                            tx.put(Table.INBOUND, b"%d" % number, bytes(9_000))
                except StoreUnavailableError:
                    pass
                with pytest.raises(StoreUnavailableError):
                    tx.put(Table.COUNTERS, b"after", b"")
                with pytest.raises(StoreUnavailableError):
                    tx.get(Table.COUNTERS, b"before")

        with pytest.raises(StoreUnavailableError):
            swallow()
        assert contents(store) == before
        with store.write() as tx:
            tx.put(Table.COUNTERS, b"again", b"")
        assert contents(store)[Table.COUNTERS] == [Record(b"again", b"", b"", 0)]


def test_a_commit_that_fails_is_undone(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        fill(store, 1)
        before = contents(store)

        def commit_on_a_full_disk() -> None:
            tx = store.write()
            with tx:
                tx.put(Table.COUNTERS, b"key", bytes(9_000))
                limit.__enter__()

        limit = largest_file(1_000)
        try:
            with pytest.raises(StoreUnavailableError):
                commit_on_a_full_disk()
        finally:
            limit.__exit__(None, None, None)
        assert contents(store) == before
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == before


def test_creating_on_a_full_disk_leaves_no_store_behind(path: Path) -> None:
    with largest_file(10_000), pytest.raises(StoreUnavailableError):
        SqliteStore.create(path, key=KEY)
    assert not SqliteStore.exists(path)
    SqliteStore.create(path, key=KEY).close()


def test_a_full_file_system_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    needs_private_mounts()
    with python(FILL_DISK, tmp_path, launcher=PRIVATE_MOUNTS) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "the disk is full" in output
    assert "kept" in output


def test_a_read_only_directory_is_named(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        fill(store, 1)
    before = files(path.parent)
    if os.geteuid() != 0:
        path.parent.chmod(0o500)
        try:
            with pytest.raises(StoreUnavailableError):
                SqliteStore.create(path.parent / "other", key=KEY)
        finally:
            path.parent.chmod(0o700)
    else:
        # Permissions do not bind the superuser, a read-only mount does.
        needs_private_mounts()
        with python(USE_READ_ONLY, path.parent, launcher=PRIVATE_MOUNTS) as process:
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert output.count("Read-only file system") == 3
        assert output.count("there is no store") == 1
    assert files(path.parent) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_file_without_write_permission_is_named(path: Path) -> None:
    SqliteStore.create(path, key=KEY).close()
    path.chmod(0o400)
    with pytest.raises(StoreUnavailableError):
        SqliteStore.open(path, key=KEY)


def test_a_directory_in_the_place_of_the_store_or_its_lock_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreUnavailableError):
        SqliteStore.open(path, key=KEY)
    with pytest.raises(StoreUnavailableError):
        SqliteStore.create(path, key=KEY)
    (path.parent / "other.lock").mkdir()
    with pytest.raises(StoreUnavailableError):
        SqliteStore.create(path.parent / "other", key=KEY)


def test_a_file_cut_anywhere_is_named_damage(path: Path) -> None:
    with SqliteStore.create(path, key=KEY) as store:
        fill(store, 2)
    whole = path.read_bytes()
    # SQLite reads zeros where the end is missing. Sixteen bytes of ciphertext are not zeros anyway; one is,
    # once in 256 runs.
    for length in [0, 1, 15, 16, 99, 100, 511, 512, 4_095, *range(4_096, len(whole), 4_096), len(whole) - 16]:
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStateError):
            open_and_read(path)


def test_a_log_cut_anywhere_falls_back_to_a_state_that_was_committed(path: Path) -> None:
    states = []
    with SqliteStore.create(path, key=KEY) as store:
        for number in range(6):
            states.append(contents(store))
            with store.write() as tx:
                tx.put(Table.COUNTERS, b"number", b"%d" % number)
                tx.put(Table.INBOUND, b"%d" % number, bytes(2_000), order=number)
        states.append(contents(store))
        database, log = path.read_bytes(), path.with_name("store-wal").read_bytes()
    reached = set()
    for length in [*range(0, len(log), 1_000), len(log)]:
        path.write_bytes(database)
        path.with_name("store-wal").write_bytes(log[:length])
        try:
            with SqliteStore.open(path, key=KEY) as store:
                reached.add(states.index(contents(store)))
        except StateError:
            continue
    assert reached == set(range(len(states)))


def open_and_read(path: Path) -> None:
    with SqliteStore.open(path, key=KEY) as store:
        contents(store)


def needs_private_mounts() -> None:
    probe = [*PRIVATE_MOUNTS, "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this system allows no private mount points")
