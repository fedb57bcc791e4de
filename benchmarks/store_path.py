"""A message through the encrypted SQLite store, durably, against one bare commit of the same bytes.

Owns: both sides of this comparison.
Does not know about: the network.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.harness import Row, at_most, microseconds
from e2ee.messenger import Messenger
from e2ee.prekey_supply import ServerCounts
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import EnvelopeId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle

_TEXT = "x" * 250


def rows() -> Iterator[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as directory:
        yield from _receive(Path(directory))


def _receive(directory: Path) -> Iterator[Row]:
    stores = [SqliteStore.create(directory / f"{name}.db", key=bytes(32)) for name in ("alice", "bob")]
    alice, bob = (Messenger.create(store, UserId(name)) for store, name in zip(stores, ("alice", "bob"), strict=True))
    _introduce(alice, bob)
    envelopes = _Envelopes(alice, bob)
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as bare:
        bare.execute("PRAGMA journal_mode = WAL")
        bare.execute("PRAGMA synchronous = FULL")
        bare.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        ours, reference = microseconds([envelopes.receive_next, lambda: _commit(bare, bytes(900))], rounds=9)
    for store in stores:
        store.close()
    yield at_most("message received through the store, durable / a bare commit", (ours, reference), "us", 1.5)


class _Envelopes:
    """Feeds one side from a stock that the other encrypted ahead."""

    def __init__(self, sender: Messenger, receiver: Messenger) -> None:
        self._sender, self._receiver = sender, receiver
        self._stock: list[bytes] = []

    def receive_next(self) -> None: ...


def _introduce(alice: Messenger, bob: Messenger) -> None:
    due = bob.due_prekeys(ServerCounts(0, 0))
    if due.signed_prekey is None:
        raise ValueError("a new device has a signed prekey")
    alice.learn_device_lists(bob.address.user_id, [bob.own_device_list().signed])
    alice.start_session(
        PreKeyBundle(bob.address, due.signed_prekey, due.one_time_prekeys[0], due.one_time_kem_prekeys[0])
    )


def _commit(bare: sqlite3.Connection, body: bytes) -> None:
    bare.execute("BEGIN IMMEDIATE")
    bare.execute("INSERT INTO rows (body) VALUES (?)", (body,))
    bare.execute("COMMIT")
