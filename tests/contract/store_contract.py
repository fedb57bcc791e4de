"""What every store promises (e2ee/ports.py), as tests: inherit `StoreContract`, give `store`."""

from collections.abc import Callable, Sequence
from threading import Event, Thread

import pytest

from e2ee.ports import Record, Store, Table

SESSIONS, CONTACTS = Table.SESSIONS, Table.CONTACTS
LARGEST_ORDER = (1 << 63) - 1


class Abandoned(Exception):
    """Raised by tests to leave a transaction."""


def snapshot(store: Store) -> dict[Table, list[Record]]:
    """Return everything that the store holds."""
    with store.read() as view:
        return {table: list(view.scan(table)) for table in Table}


def keys(records: Sequence[Record]) -> list[bytes]:
    return [record.key for record in records]


class StoreContract:
    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def test_what_was_committed_is_read_back(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"value", group=b"group", order=-7)
            tx.put(SESSIONS, b"", b"")
        with store.read() as view:
            assert view.get(SESSIONS, b"key") == b"value"
            assert view.get(SESSIONS, b"") == b""
            assert view.get(SESSIONS, b"absent") is None
            assert view.scan(SESSIONS) == [Record(b"key", b"value", b"group", -7), Record(b"", b"", b"", 0)]

    def test_tables_do_not_share_keys_or_groups(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"session", group=b"group")
            tx.put(CONTACTS, b"key", b"contact", group=b"group")
            assert tx.delete_group(SESSIONS, b"group") == 1
            assert (tx.get(SESSIONS, b"key"), tx.get(CONTACTS, b"key")) == (None, b"contact")

    def test_put_replaces_value_group_and_order(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"old", group=b"old", order=1)
            tx.put(SESSIONS, b"key", b"new", group=b"new", order=2)
            assert tx.scan(SESSIONS) == [Record(b"key", b"new", b"new", 2)]
            assert (tx.count(SESSIONS, b"old"), tx.count(SESSIONS, b"new")) == (0, 1)

    @pytest.mark.parametrize("size", [1, 4_000, 4_096, 100_000, 3_000_000])
    def test_values_of_any_size_are_kept(self, store: Store, size: int) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"\xa5" * size)
            tx.put(SESSIONS, b"key", b"\x5a" * size)
        with store.read() as view:
            assert view.get(SESSIONS, b"key") == b"\x5a" * size

    def test_scan_sorts_by_order_then_key_in_both_directions(self, store: Store) -> None:
        orders = {b"d": -LARGEST_ORDER, b"c": 0, b"b": 5, b"a": 5, b"e": LARGEST_ORDER}
        with store.write() as tx:
            for key, order in orders.items():
                tx.put(SESSIONS, key, b"", group=key, order=order)
            assert keys(tx.scan(SESSIONS)) == [b"d", b"c", b"a", b"b", b"e"]
            assert keys(tx.scan(SESSIONS, newest_first=True)) == [b"e", b"b", b"a", b"c", b"d"]

    @pytest.mark.parametrize("group", [None, b"group"])
    def test_limit_keeps_the_first_of_the_sorted_records_even_among_equal_orders(
        self, store: Store, group: bytes | None
    ) -> None:
        with store.write() as tx:
            for letter in b"fabced":
                tx.put(SESSIONS, bytes((letter,)), b"", group=b"group", order=letter // 3)
            whole, reverse = keys(tx.scan(SESSIONS, group)), keys(tx.scan(SESSIONS, group, newest_first=True))
            for limit in range(8):
                assert keys(tx.scan(SESSIONS, group, limit=limit)) == whole[:limit]
                assert keys(tx.scan(SESSIONS, group, limit=limit, newest_first=True)) == reverse[:limit]

    def test_a_range_is_read_from_both_ends_with_its_bounds_and_without_its_neighbours(self, store: Store) -> None:
        with store.write() as tx:
            for letter in b"fabcedghi":
                tx.put(SESSIONS, bytes((letter,)), b"", group=b"group", order=letter // 3)
                tx.put(SESSIONS, bytes((letter, 0)), b"", group=b"other", order=letter // 3)
            for within in ((33, 34), (-LARGEST_ORDER, 33), (34, LARGEST_ORDER), (34, 33)):
                members = tx.scan(SESSIONS, b"group")
                inside = keys([record for record in members if within[0] <= record.order <= within[1]])
                assert keys(tx.scan_range(SESSIONS, b"group", within)) == inside
                for limit in range(8):
                    oldest = tx.scan_range(SESSIONS, b"group", within, limit=limit)
                    newest = tx.scan_range(SESSIONS, b"group", within, limit=limit, newest_first=True)
                    assert (keys(oldest), keys(newest)) == (inside[:limit], inside[::-1][:limit])

    def test_a_group_is_read_counted_and_deleted_alone(self, store: Store) -> None:
        with store.write() as tx:
            for number in range(6):
                tx.put(SESSIONS, bytes((number,)), b"", group=b"even" if number % 2 == 0 else b"odd", order=number)
            assert keys(tx.scan(SESSIONS, b"odd")) == [b"\1", b"\3", b"\5"]
            assert (tx.count(SESSIONS), tx.count(SESSIONS, b"even"), tx.count(SESSIONS, b"none")) == (6, 3, 0)
            assert (tx.delete_group(SESSIONS, b"even"), tx.delete_group(SESSIONS, b"even")) == (3, 0)
            assert keys(tx.scan(SESSIONS)) == [b"\1", b"\3", b"\5"]

    def test_deleting_what_is_not_there_changes_nothing(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"value")
            tx.delete(SESSIONS, b"other")
            tx.delete(SESSIONS, b"key")
            tx.delete(SESSIONS, b"key")
            assert tx.count(SESSIONS) == 0

    def test_delete_before_takes_the_lowest_orders_of_all_groups_and_spares_the_bound(self, store: Store) -> None:
        with store.write() as tx:
            for number in range(-3, 5):
                tx.put(SESSIONS, str(number).encode(), b"", group=bytes((number % 3,)), order=number)
            assert tx.delete_before(SESSIONS, 3, limit=2) == 2
            assert tx.scan(SESSIONS, limit=1)[0].order == -1
            assert tx.delete_before(SESSIONS, 3, limit=0) == 0
            assert tx.delete_before(SESSIONS, 3) == 4
            assert [record.order for record in tx.scan(SESSIONS)] == [3, 4]
            assert tx.delete_before(SESSIONS, 3) == 0

    def test_arguments_that_no_store_can_keep_are_refused_and_change_nothing(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"k" * 255, b"", group=b"g" * 255)
            for key, group, order in [
                (b"k" * 256, b"", 0),
                (b"k", b"g" * 256, 0),
                (b"k", b"", LARGEST_ORDER + 1),
                (b"k", b"", -LARGEST_ORDER - 1),
            ]:
                with pytest.raises(ValueError):
                    tx.put(SESSIONS, key, b"", group=group, order=order)
            with pytest.raises(ValueError):
                tx.delete_before(SESSIONS, LARGEST_ORDER + 1)
            with pytest.raises(ValueError):
                tx.delete_before(SESSIONS, 0, limit=-1)
            with pytest.raises(ValueError):
                tx.scan(SESSIONS, limit=-1)
            with pytest.raises(ValueError):
                tx.scan_range(SESSIONS, b"", (0, LARGEST_ORDER + 1))
            with pytest.raises(ValueError):
                tx.scan_range(SESSIONS, b"", (0, 1), limit=-1)
        assert len(snapshot(store)[SESSIONS]) == 1

    @pytest.mark.parametrize("error", [Abandoned, KeyboardInterrupt])
    def test_an_exception_undoes_the_whole_transaction(self, store: Store, error: type[BaseException]) -> None:
        with store.write() as tx:
            for number in range(8):
                tx.put(SESSIONS, bytes((number,)), b"old", group=bytes((number // 2,)), order=number)
        before = snapshot(store)

        def change_everything_and_fail() -> None:
            with store.write() as tx:
                tx.put(SESSIONS, b"\0", b"new", group=b"new", order=99)
                tx.put(SESSIONS, b"\0", b"newer")
                tx.delete(SESSIONS, b"\1")
                tx.put(SESSIONS, b"\1", b"again")
                tx.delete_group(SESSIONS, b"\1")
                tx.delete_before(SESSIONS, 6)
                tx.put(CONTACTS, b"contact", b"new")
                raise error

        with pytest.raises(error):
            change_everything_and_fail()
        assert snapshot(store) == before

    def test_a_transaction_sees_its_own_writes(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"value", group=b"group")
            assert (tx.get(SESSIONS, b"key"), tx.count(SESSIONS, b"group")) == (b"value", 1)
            tx.delete(SESSIONS, b"key")
            assert (tx.get(SESSIONS, b"key"), tx.scan(SESSIONS)) == (None, [])

    def test_nested_transactions_are_refused_and_the_outer_one_goes_on(self, store: Store) -> None:
        with store.write() as tx:
            tx.put(SESSIONS, b"key", b"value")
            for inner in (store.write(), store.read()):
                with pytest.raises(RuntimeError), inner:
                    raise AssertionError("entered")
            with pytest.raises(RuntimeError):
                store.close()
            tx.put(SESSIONS, b"other", b"value")
        assert keys(snapshot(store)[SESSIONS]) == [b"key", b"other"]

    def test_a_transaction_works_only_inside_its_block(self, store: Store) -> None:
        with store.write() as ended:
            ended.put(SESSIONS, b"key", b"value")
        calls: tuple[Callable[[], object], ...] = (
            lambda: ended.get(SESSIONS, b"key"),
            lambda: ended.scan(SESSIONS),
            lambda: ended.scan_range(SESSIONS, b"", (0, 1)),
            lambda: ended.count(SESSIONS),
            lambda: ended.put(SESSIONS, b"late", b""),
            lambda: ended.delete(SESSIONS, b"key"),
            lambda: ended.delete_group(SESSIONS, b""),
            lambda: ended.delete_before(SESSIONS, 1),
        )
        for call in calls:
            with pytest.raises(RuntimeError):
                call()
        assert keys(snapshot(store)[SESSIONS]) == [b"key"]

    def test_a_closed_store_refuses_and_closing_again_is_harmless(self, store: Store) -> None:
        store.close()
        store.close()
        for each in (store.read(), store.write()):
            with pytest.raises(RuntimeError), each:
                raise AssertionError("entered")

    def test_threads_take_turns_and_no_update_is_lost(self, store: Store) -> None:
        def count_up() -> None:
            for _ in range(25):
                with store.write() as tx:
                    number = int(tx.get(SESSIONS, b"number") or b"0")
                    tx.put(SESSIONS, b"number", b"%d" % (number + 1))

        in_threads([count_up] * 8)
        with store.read() as view:
            assert view.get(SESSIONS, b"number") == b"200"

    def test_no_thread_sees_half_of_a_transaction(self, store: Store) -> None:
        finished = Event()

        def write() -> None:
            for number in range(100):
                with store.write() as tx:
                    tx.put(SESSIONS, b"left", b"%d" % number)
                    tx.put(CONTACTS, b"right", b"%d" % number)
            finished.set()

        def look() -> None:
            while not finished.is_set():
                with store.read() as view:
                    assert view.get(SESSIONS, b"left") == view.get(CONTACTS, b"right")

        in_threads([write, look, look])

    def test_a_reader_waits_for_the_transaction_of_another_thread(self, store: Store) -> None:
        seen: list[bytes | None] = []

        def look() -> None:
            with store.read() as view:
                seen.append(view.get(SESSIONS, b"key"))

        with store.write() as tx:
            reader = Thread(target=look)
            reader.start()
            tx.put(SESSIONS, b"key", b"committed")
            assert seen == []
        reader.join()
        assert seen == [b"committed"]


def in_threads(targets: Sequence[Callable[[], None]]) -> None:
    """Run all at once; fail with the first error that one of them raised."""
    errors: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread of the test
            errors.append(error)

    threads = [Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
