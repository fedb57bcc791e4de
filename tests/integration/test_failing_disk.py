"""A whole life of two devices on a disk that fails at every operation of every kind of commit, under the real SQLite.

Each failure is a StoreUnavailableError and leaves the state as it was, whether the device goes on or is started anew.
Then the same call succeeds.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from e2ee.errors import AccountNotFoundError, StoreUnavailableError
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.recovery import RecoveryCode
from e2ee.stores.sqlite import SqliteStore
from tests.crash_devices import CHUNKS, long_history, texts
from tests.failing_disk import FailingDisk, Failure
from tests.store_files import KEY, contents
from tests.whole_life import Act, Kind, Story, rehearse
from tests.world import World, talk

ERRORS = (Failure.ERROR_ONCE, Failure.ERROR_FOR_GOOD)


@pytest.fixture
def directory() -> Iterator[Path]:
    # The disk fails when it is told to, so the bytes may as well stay in memory.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    try:
        made = FailingDisk()
    except (OSError, AttributeError):
        pytest.skip("this Python hides the functions of its SQLite")
    with made:
        yield made


def put_one_more(store: SqliteStore) -> None:
    with store.write() as tx:
        number = tx.count(Table.INBOUND)
        tx.put(Table.INBOUND, b"%d" % number, bytes(9_000), order=number)
        tx.put(Table.COUNTERS, b"number", b"%d" % number)


@pytest.mark.parametrize("failures", [(Failure.FULL,), ERRORS], ids=["full", "errors"])
def test_a_disk_that_fails_at_any_operation_of_any_commit_of_a_whole_life_changes_nothing(
    directory: Path, disk: FailingDisk, failures: tuple[Failure, ...]
) -> None:
    (directory / "rehearsal").mkdir()
    kinds = rehearse(directory / "rehearsal")
    upcoming, starved = iter(kinds), Counter[Kind]()
    story = Story(directory)

    def perform(act: Act) -> Any:
        kind = next(upcoming)
        assert act.method == kind[0]
        if kind in starved:
            return act.perform()
        result, starved[kind] = starve(story, act, disk, failures)
        return result

    story.tell(perform)
    writing = {kind for kind in kinds if kind[1]}
    assert {kind for kind, failed in starved.items() if failed} >= writing
    assert len(writing) > 30


def starve(story: Story, act: Act, disk: FailingDisk, failures: tuple[Failure, ...]) -> tuple[Any, int]:
    """Let the disk fail at the first operation of an act, then at the second, until the act gets through."""
    reopen(story, act)
    before = act.device.snapshot()
    for operations in count():
        disk.fail(operations, failures[operations % len(failures)])
        try:
            result = act.perform()
        except StoreUnavailableError:
            disk.recover()
        else:
            assert not disk.has_failed
            disk.recover()
            return result, operations
        # Half of the time the device goes on as it is.
        if operations // len(failures) % 2:
            reopen(story, act)
        after = act.device.snapshot()
        if act.method == "reconsider" and len(after[Table.PENDING_TRUST]) < len(before[Table.PENDING_TRUST]):
            before = after  # a commit for each envelope that was kept
        assert after == before
    raise AssertionError


def reopen(story: Story, act: Act) -> None:
    """Start a device anew, and connect it as a client does before it sends: nothing looks like a rollback."""
    story.reopen(act.device)
    if act.method != "delivery.note_connected":
        assert act.device.messenger.delivery.note_connected(story.inboxes[act.device].statement()) == ()


@pytest.mark.parametrize("failure", Failure)
def test_a_store_does_not_open_on_a_failing_disk_and_is_whole_afterwards(
    directory: Path, disk: FailingDisk, failure: Failure
) -> None:
    """The file is that of a process that died: its log must be read, and folded in at the end."""
    path = directory / "store"
    with SqliteStore.create(directory / "original", key=KEY) as original:
        for _ in range(3):
            put_one_more(original)
        before = contents(original)
        for suffix in ("", "-wal"):
            shutil.copy(f"{directory}/original{suffix}", f"{path}{suffix}")
    for operations in count():
        disk.fail(operations, failure)
        try:
            SqliteStore.open(path, key=KEY).close()
        except StoreUnavailableError:
            disk.recover()
        else:
            break
    disk.recover()
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == before
        put_one_more(store)
    assert operations > 50 or failure is Failure.FULL


@pytest.mark.parametrize("failure", Failure)
def test_creating_a_store_on_a_failing_disk_leaves_a_whole_one_or_none(
    directory: Path, disk: FailingDisk, failure: Failure
) -> None:
    path = directory / "store"
    for operations in count():
        disk.fail(operations, failure)
        try:
            SqliteStore.create(path, key=KEY).close()
        except StoreUnavailableError:
            disk.recover()
        else:
            break
        if SqliteStore.exists(path):
            SqliteStore.open(path, key=KEY).close()
            path.unlink()
    assert operations > 20


@pytest.mark.parametrize("failure", Failure)
def test_a_commit_that_the_disk_did_not_confirm_is_whole_or_absent_after_a_crash(
    directory: Path, disk: FailingDisk, failure: Failure
) -> None:
    """When the last sync fails, the log may hold the commit all the same. No process can know."""
    copied = directory / "copied"
    found = set()
    with SqliteStore.create(directory / "store", key=KEY) as store:
        put_one_more(store)
        for operations in count():
            before = contents(store)
            disk.fail(operations, failure)
            try:
                put_one_more(store)
            except StoreUnavailableError:
                disk.recover()
            else:
                break
            assert contents(store) == before
            for suffix in ("", "-wal"):
                shutil.copy(f"{directory}/store{suffix}", f"{copied}{suffix}")
            with SqliteStore.open(copied, key=KEY) as after_a_crash:
                after = contents(after_a_crash)
            if after != before:
                assert len(after[Table.INBOUND]) == len(before[Table.INBOUND]) + 1
                assert after[Table.COUNTERS] != before[Table.COUNTERS]
            found.add(after == before)
    assert found == ({True} if failure is Failure.FULL else {True, False})


def test_what_is_sent_after_a_send_that_failed_is_all_that_a_crash_leaves(directory: Path, disk: FailingDisk) -> None:
    """Both have the same counter and the same message key, so only one of them may ever be found."""
    store, world = SqliteStore.create(directory / "alice", key=KEY), World("in doubt")
    alice, bob = world.device("alice", store=store, one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(alice, bob)
    for operations in count():
        disk.fail(operations, Failure.ERROR_ONCE)
        try:
            alice.messenger.send(bob.user_id, "refused")
        except StoreUnavailableError:
            disk.recover()
        else:
            break
        alice.messenger.send(bob.user_id, "accepted")
        for suffix in ("", "-wal"):
            shutil.copy(f"{directory}/alice{suffix}", f"{directory}/copy{suffix}")
        with SqliteStore.open(directory / "copy", key=KEY) as after_a_crash:
            assert contents(after_a_crash) == contents(store)
        alice.post()
        world.deliver()
        assert bob.read() == ["accepted"]
    assert operations > 5
    store.close()


@pytest.mark.parametrize("failure", Failure)
def test_an_export_taken_in_on_a_failing_disk_is_taken_in_as_far_as_it_went_and_goes_on(
    directory: Path, disk: FailingDisk, failure: Failure
) -> None:
    original, code = long_history(), RecoveryCode(bytes(20))
    export, whole = b"".join(original.backup.export(code)), texts(original)
    reached = set()
    for operations in count(step=5):
        path = directory / f"{operations}"
        with SqliteStore.create(path, key=KEY) as store:
            disk.fail(operations, failure)
            try:
                Messenger.recover(store, export, code)
            except StoreUnavailableError:
                disk.recover()
            else:
                break
        with SqliteStore.open(path, key=KEY) as store:
            try:
                left = texts(Messenger.open(store))
            except AccountNotFoundError:
                assert all(not rows for rows in contents(store).values()), "half an account"
                Messenger.recover(store, export, code)
            else:
                assert left == whole[: len(left)]
                list(Messenger.open(store).backup.merge(export, code))
                reached.add(len(left))
            assert texts(Messenger.open(store)) == whole
    assert 0 in reached
    assert len(reached) > CHUNKS - 1, "the disk failed between all pieces"
