"""The store in memory keeps the contract."""

import pytest
from hypothesis import settings

from e2ee.ports import Store, Table
from e2ee.stores.memory import MemoryStore
from tests.contract.store_contract import StoreContract
from tests.contract.store_machine import StoreMachine


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class MemoryStoreMachine(StoreMachine):
    def open_store(self) -> Store:
        return MemoryStore()


TestMemoryStoreMachine = MemoryStoreMachine.TestCase
TestMemoryStoreMachine.settings = settings(max_examples=100, stateful_step_count=40)


def test_two_stores_share_nothing() -> None:
    left, right = MemoryStore(), MemoryStore()
    with left.write() as tx, right.write() as other:
        tx.put(Table.CONTACTS, b"key", b"value")
        assert other.get(Table.CONTACTS, b"key") is None
