"""What a store must offer: keyed records in tables, under transactions.

Owns: the protocols, and the list of tables.
Does not know about: what the records mean (stores/records.py), how they are kept or encrypted.

A store is deliberately dumb: bytes by key. Everything typed is done once, above it, so another store is a page of code.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Final, NamedTuple, Protocol, final


@final
class Table(Enum):
    """A table and the schema version of its records. Both are part of a record's associated data at rest."""

    ACCOUNT = ("account", 1)
    OWN_DEVICE_LISTS = ("own_device_lists", 1)
    CONTACTS = ("contacts", 1)
    PREKEYS = ("prekeys", 1)
    USED_PREKEY_IDS = ("used_prekey_ids", 1)
    SESSIONS = ("sessions", 1)
    SKIPPED_KEYS = ("skipped_keys", 1)
    REPLAYS = ("replays", 1)
    INBOUND = ("inbound", 1)
    OUTBOX = ("outbox", 1)
    BODY_HASHES = ("body_hashes", 1)
    MESSAGE_IDS = ("message_ids", 1)
    UNREADABLE = ("unreadable", 1)
    PENDING_TRUST = ("pending_trust", 1)
    DELIVERIES = ("deliveries", 1)
    COUNTERS = ("counters", 1)
    SENT = ("sent", 1)
    RESENDS = ("resends", 1)
    HEALING = ("healing", 1)
    DROPPED = ("dropped", 1)
    OWED_ANSWERS = ("owed_answers", 1)
    TRUST_DECISIONS = ("trust_decisions", 1)
    HISTORY = ("history", 1)
    CONVERSATIONS = ("conversations", 1)
    REMOVED_DEVICES = ("removed_devices", 1)
    FAILED_SENDS = ("failed_sends", 1)
    EARLY_WORDS = ("early_words", 1)

    def __init__(self, label: str, version: int) -> None:
        self.label: Final = label
        self.version: Final = version


class Record(NamedTuple):
    """One record as it was put."""

    key: bytes
    value: bytes
    group: bytes
    order: int

    def __repr__(self) -> str:
        # The value holds secrets and plaintext, and keys and groups may name people.
        return f"Record({len(self.value)} bytes redacted)"


class ReadTransaction(Protocol):
    """A consistent view. Keys and groups are at most 255 bytes; `order` is any integer of 63 bits and sign."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the value under `key`, or None.

        Raises:
            CorruptStateError: the stored record does not authenticate.
        """
        ...

    def scan(
        self, table: Table, group: bytes | None = None, *, limit: int | None = None, newest_first: bool = False
    ) -> Sequence[Record]:
        """Return the records of one group (None: of all groups) by `order`, then by key; at most `limit`.

        Raises:
            CorruptStateError: a stored record does not authenticate.
        """
        ...

    def scan_range(
        self,
        table: Table,
        group: bytes,
        within: tuple[int, int],
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Record]:
        """Return the records of one group whose order is `within` two bounds, both included, as `scan` does.

        Takes time in proportion to what it returns and not to the group, so that a long history opens in pages. Records
        of one order are read together: many of one order cost time even beyond `limit`.

        Raises:
            CorruptStateError: a stored record does not authenticate.
        """
        ...

    def count(self, table: Table, group: bytes | None = None) -> int:
        """Return the number of records of one group (None: of all groups)."""
        ...


class Transaction(ReadTransaction, Protocol):
    """A view that also writes. All of it is durable when the transaction ends, or none of it."""

    def put(self, table: Table, key: bytes, value: bytes, *, group: bytes = b"", order: int = 0) -> None:
        """Insert or replace the record under `key`, its group and its order."""
        ...

    def delete(self, table: Table, key: bytes) -> None:
        """Delete the record under `key`; nothing happens if there is none."""
        ...

    def delete_group(self, table: Table, group: bytes) -> int:
        """Delete all records of a group; return how many."""
        ...

    def delete_before(self, table: Table, order: int, *, limit: int | None = None) -> int:
        """Delete records of any group whose order is below `order`, lowest first; return how many."""
        ...


class Store(Protocol):
    """Where a device keeps its state. One writer at a time; usable from any thread, one transaction at a time."""

    def read(self) -> AbstractContextManager[ReadTransaction]:
        """Open a consistent view."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Open a transaction: commits durably when the block ends, rolls back when it raises.

        Raises:
            StoreUnavailableError: the disk refused; nothing of this transaction was kept. If it refused to confirm the
                commit, and the process then dies before its next one, a store may find the whole transaction again.
        """
        ...

    def close(self) -> None:
        """Release the store. Idempotent."""
        ...
