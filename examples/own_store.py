"""A store of one's own: a device's whole state in one protected item, such as a keychain entry.

Shows: what `e2ee.ports.Store` asks for: transactions that commit durably or not at all, one at a time, for any thread.
Suits devices with little state, because every commit writes all of it; `SqliteStore` writes what changed.

    store = VaultStore(MyKeychainItem())
    messenger = Messenger.create(store, parse_user_id("alice"))
    client = await SecureClient.open(store=store, user="alice", ...)

To run it: `pytest tests/integration/test_examples.py -k store`, which holds it to tests/contract/store_contract.py.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from e2ee.errors import CorruptStateError, StoreUnavailableError
from e2ee.ports import Record, Table
from e2ee.stores.rules import Turn, check_limit, check_order, check_range, check_record

State = dict[Table, dict[bytes, Record]]


class Vault(Protocol):
    """Keeps one value secret and unaltered. The value holds private keys: nothing may read it but this application."""

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""
        ...

    def save(self, state: bytes) -> None:
        """Replace the value, durably, at once or not at all. Raises OSError if that fails."""
        ...


class VaultStore:
    """Implements `e2ee.ports.Store`."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._turn = vault, Turn()
        self._state: State | None = _decoded(vault.load())

    @contextmanager
    def read(self) -> Iterator["VaultTransaction"]:
        with self._transaction() as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator["VaultTransaction"]:
        with self._transaction() as transaction:
            yield transaction
            try:
                self._vault.save(_encoded(transaction.state))
            except OSError as error:
                raise StoreUnavailableError("the vault refused") from error
            self._state = transaction.state

    def close(self) -> None:
        self._turn.take()
        self._state = None
        self._turn.give_back()

    @contextmanager
    def _transaction(self) -> Iterator["VaultTransaction"]:
        self._turn.take()  # waits for other threads, and refuses to nest
        try:
            if self._state is None:
                raise RuntimeError("the store is closed")
            # On a copy: a block that raises has changed nothing.
            transaction = VaultTransaction({table: dict(records) for table, records in self._state.items()})
            try:
                yield transaction
            finally:
                transaction.is_open = False
        finally:
            self._turn.give_back()


class VaultTransaction:
    """Implements `e2ee.ports.Transaction`."""

    def __init__(self, state: State) -> None:
        self.state, self.is_open = state, True

    def get(self, table: Table, key: bytes) -> bytes | None:
        record = self._table(table).get(key)
        return None if record is None else record.value

    def scan(
        self, table: Table, group: bytes | None = None, *, limit: int | None = None, newest_first: bool = False
    ) -> Sequence[Record]:
        check_limit(limit)
        members = [record for record in self._table(table).values() if group in (None, record.group)]
        return sorted(members, key=lambda record: (record.order, record.key), reverse=newest_first)[:limit]

    def scan_range(
        self,
        table: Table,
        group: bytes,
        within: tuple[int, int],
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Record]:
        check_range(within)
        check_limit(limit)
        members = self.scan(table, group, newest_first=newest_first)
        return [record for record in members if within[0] <= record.order <= within[1]][:limit]

    def count(self, table: Table, group: bytes | None = None) -> int:
        return len(self.scan(table, group))

    def put(self, table: Table, key: bytes, value: bytes, *, group: bytes = b"", order: int = 0) -> None:
        check_record(key, group, order)
        self._table(table)[key] = Record(key, value, group, order)

    def delete(self, table: Table, key: bytes) -> None:
        self._table(table).pop(key, None)

    def delete_group(self, table: Table, group: bytes) -> int:
        return self._delete(table, self.scan(table, group))

    def delete_before(self, table: Table, order: int, *, limit: int | None = None) -> int:
        check_order(order)
        check_limit(limit)
        return self._delete(table, [record for record in self.scan(table) if record.order < order][:limit])

    def _delete(self, table: Table, records: Sequence[Record]) -> int:
        for record in records:
            del self._table(table)[record.key]
        return len(records)

    def _table(self, table: Table) -> dict[bytes, Record]:
        if not self.is_open:
            raise RuntimeError("the transaction is not open")
        return self.state[table]


def _encoded(state: State) -> bytes:
    tables = {
        table.label: [(each.key.hex(), each.value.hex(), each.group.hex(), each.order) for each in records.values()]
        for table, records in state.items()
    }
    return json.dumps(tables).encode()


def _decoded(saved: bytes | None) -> State:
    state: State = {table: {} for table in Table}
    try:
        tables = {} if saved is None else json.loads(saved)
        for table in Table:
            for key, value, group, order in tables.get(table.label, ()):
                record = Record(bytes.fromhex(key), bytes.fromhex(value), bytes.fromhex(group), order)
                state[table][record.key] = record
    except (ValueError, TypeError, AttributeError):
        raise CorruptStateError("the vault holds something else") from None
    return state
