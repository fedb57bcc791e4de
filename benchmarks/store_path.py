"""A message through the encrypted SQLite store, durably, against one bare commit of the same bytes.

Owns: both sides of this comparison.
Does not know about: the network.
"""

import itertools
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.harness import Row, at_most
from e2ee.messenger import Messenger
from e2ee.prekey_supply import ServerCounts
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import UserId
from e2ee.wire.prekey_bundle import PreKeyBundle

_TEXT = "x" * 250
_ROUNDS, _PER_ROUND = 40, 25


def rows() -> Iterator[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as directory:
        yield _receive(Path(directory))


def _receive(directory: Path) -> Row:
    store = SqliteStore.create(directory / "bob.db", key=bytes(32))
    alice, bob = Messenger.create(MemoryStore(), UserId("alice")), Messenger.create(store, UserId("bob"))
    _introduce(alice, bob)
    _hear_back(alice, bob)
    envelopes = iter(_encrypt(alice, bob.address.user_id, _ROUNDS * _PER_ROUND))
    receiving: list[float] = []
    committing: list[float] = []
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as bare:
        bare.execute("PRAGMA journal_mode = WAL")
        bare.execute("PRAGMA synchronous = FULL")
        bare.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        for _ in range(_ROUNDS):
            batch = list(itertools.islice(envelopes, _PER_ROUND))
            receiving.append(_time(bob.receive, batch))
            committing.append(_time(partial(_commit, bare), batch))
    store.close()
    sides = statistics.median(receiving) / _PER_ROUND * 1e6, statistics.median(committing) / _PER_ROUND * 1e6
    return at_most("message received through the store, durable / a bare commit", sides, "us", 1.5)


def _encrypt(sender: Messenger, recipient: UserId, count: int) -> list[bytes]:
    for _ in range(count):
        sender.send(recipient, _TEXT)
    return [entry.envelope for entry in sender.outbox.entries()]


def _time(operation: Callable[[bytes], object], batch: list[bytes]) -> float:
    start = time.perf_counter()
    for envelope in batch:
        operation(envelope)
    return time.perf_counter() - start


def _introduce(alice: Messenger, bob: Messenger) -> None:
    due = bob.registration.due_prekeys(ServerCounts(0, 0))
    if due.signed_prekey is None:
        raise ValueError("a new device has a signed prekey")
    alice.learn_device_lists(bob.address.user_id, [bob.own_device_list().signed])
    alice.start_session(
        PreKeyBundle(bob.address, due.signed_prekey, due.one_time_prekeys[0], due.one_time_kem_prekeys[0])
    )


def _hear_back(alice: Messenger, bob: Messenger) -> None:
    """Let one message go each way: from then on there are no first messages, which carry a handshake."""
    for sender, recipient in ((alice, bob), (bob, alice)):
        sender.send(recipient.address.user_id, "hello")
        for entry in sender.outbox.entries():
            recipient.receive(entry.envelope)
            sender.outbox.settle([entry.envelope_id])


def _commit(bare: sqlite3.Connection, body: bytes) -> None:
    bare.execute("BEGIN IMMEDIATE")
    bare.execute("INSERT INTO rows (body) VALUES (?)", (body,))
    bare.execute("COMMIT")
