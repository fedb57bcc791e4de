"""Processes that die, and processes that share a store: real ones."""

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from e2ee.errors import StoreLockedError
from e2ee.messenger import Messenger, Outcome
from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
from tests.store_files import KEY, contents, python
from tests.world import World, talk

# Each transaction writes its number to four tables, deletes its predecessor's second row, and says so once committed.
WRITER = """
import sys
from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1], key=bytes(range(32)))
with store.read() as view:
    number = int.from_bytes(view.get(Table.COUNTERS, b"number") or b"", "big")
print("open", flush=True)
while True:
    number += 1
    raw = number.to_bytes(8, "big")
    with store.write() as tx:
        tx.put(Table.COUNTERS, b"number", raw)
        tx.put(Table.INBOUND, raw, raw * 200, order=number)
        tx.put(Table.OUTBOX, raw, raw * 50, order=number)
        if number > 1:
            tx.delete(Table.OUTBOX, (number - 1).to_bytes(8, "big"))
    print(number, flush=True)
"""

HOLDER = """
import sys
from e2ee.errors import StoreLockedError
from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
key = bytes(range(32))
if sys.argv[3:] == ["wait"]:
    try:
        SqliteStore.open(sys.argv[1], key=key)
    except StoreLockedError:
        print("waiting", flush=True)
store = SqliteStore.open(sys.argv[1], key=key, wait=60)
if sys.argv[2] == "inside":
    tx = store.write()
    with tx:
        for number in range(2_000):  # more than the page cache holds, so that pages reach the log before the commit
            tx.put(Table.INBOUND, b"uncommitted %d" % number, bytes(3_000))
        print("ready", flush=True)
        sys.stdin.readline()
print("ready", flush=True)
sys.stdin.readline()
store.close()
"""


# Sends, as soon as it gets the store, the messages that its arguments name; says so after each one.
SENDER = """
import sys
from e2ee.messenger import Messenger
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import parse_user_id
for text in sys.argv[2:]:
    with SqliteStore.open(sys.argv[1], key=bytes(range(32)), wait=60) as store:
        Messenger.open(store).send(parse_user_id("bob"), text)
    print(text, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    SqliteStore.create(path, key=KEY).close()
    return path


def test_killed_at_any_moment_keeps_what_was_committed_and_nothing_else(path: Path) -> None:
    rng = random.Random(7)
    for _ in range(10):
        with python(WRITER, path) as process:
            assert process.stdout is not None
            announced = 0
            for line in process.stdout:
                announced = announced if line == "open\n" else int(line)
                # The writer goes on while the signal is under way: it dies somewhere in the next transactions.
                if rng.random() < 0.02:
                    process.send_signal(signal.SIGKILL)
                    break
            # What it still managed to announce was committed too.
            announced = max([announced, *(int(line) for line in process.stdout if line.endswith("\n"))])
        with SqliteStore.open(path, key=KEY) as store:
            records = contents(store)
        [counter] = records[Table.COUNTERS]
        number = int.from_bytes(counter.value, "big")
        assert number in (announced, announced + 1)
        assert [record.order for record in records[Table.INBOUND]] == list(range(1, number + 1))
        assert [record.order for record in records[Table.OUTBOX]] == [number]


def test_killed_inside_a_transaction_leaves_no_trace_of_it(path: Path) -> None:
    with SqliteStore.open(path, key=KEY) as store:
        with store.write() as tx:
            tx.put(Table.INBOUND, b"committed", b"value")
        before = contents(store)
    with python(HOLDER, path, "inside") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert path.with_name("store-wal").stat().st_size > 1_000_000
        process.kill()
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == before


def test_a_second_process_is_told_and_the_lock_dies_with_the_first(path: Path) -> None:
    with python(HOLDER, path, "outside") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(StoreLockedError):
            SqliteStore.open(path, key=KEY)
        process.kill()
    SqliteStore.open(path, key=KEY).close()


def test_a_second_process_that_waits_gets_the_store_when_the_first_closes(path: Path) -> None:
    opened: list[SqliteStore] = []
    with python(HOLDER, path, "outside") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        waiting = threading.Thread(target=lambda: opened.append(SqliteStore.open(path, key=KEY, wait=60)))
        waiting.start()
        assert opened == []
        process.communicate("close\n")
        waiting.join()
    [store] = opened
    store.close()


def test_a_second_process_that_waits_gets_the_store_when_the_first_is_killed(path: Path) -> None:
    """In the middle of a transaction, which leaves no trace."""
    with SqliteStore.open(path, key=KEY) as store:
        before = contents(store)
    with python(HOLDER, path, "inside") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        # Only now: of two that start together the other one might be faster.
        with python(HOLDER, path, "outside", "wait") as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            first.kill()
            assert second.stdout.readline() == "ready\n"
            with pytest.raises(StoreLockedError):
                SqliteStore.open(path, key=KEY)
            second.communicate("close\n")
            assert second.returncode == 0
    with SqliteStore.open(path, key=KEY) as store:
        assert contents(store) == before


def test_processes_that_send_from_one_store_in_turns_use_each_counter_and_key_once(tmp_path: Path) -> None:
    path, world = tmp_path / "alice", World("two processes")
    with SqliteStore.create(path, key=KEY) as store:
        alice, bob = world.device("alice", store=store), world.device("bob")
        talk(alice, bob)
        counter = world.network.accepted[alice.address]
    texts = [[f"{process} {number}" for number in range(10)] for process in "AB"]
    processes = [python(SENDER, path, *each) for each in texts]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    with SqliteStore.open(path, key=KEY) as store:
        entries = Messenger.open(store).outbox.entries()
    assert [entry.counter for entry in entries] == list(range(counter + 1, counter + 21))
    assert [bob.receive(entry.envelope).outcome for entry in entries] == [Outcome.STORED] * 20
    assert sorted(map(str, bob.read())) == sorted(text for each in texts for text in each)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_cannot_use_the_store_of_its_parent(path: Path) -> None:
    with SqliteStore.open(path, key=KEY) as store:
        child = os.fork()
        if child == 0:  # nothing may escape here: the child would go on as a second test run
            refused = 0
            for attempt in (store.read().__enter__, store.write().__enter__, store.close):
                try:
                    attempt()
                except RuntimeError:
                    refused += 1
                except BaseException:  # noqa: BLE001  # counted as not refused
                    pass
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        with store.write() as tx:
            tx.put(Table.COUNTERS, b"parent", b"goes on")
        # The child's end did not let the lock go.
        with pytest.raises(StoreLockedError):
            SqliteStore.open(path, key=KEY)
