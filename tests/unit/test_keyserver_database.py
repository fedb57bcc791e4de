"""The database: one writer that groups, readers beside it, nobody answered before the commit."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from keyserver.database import Database, database_url


def create_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(database_url(str(tmp_path / "test.db")))
    await database.start()
    await database.write(create_table)
    yield database
    await database.close()


def insert(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return work


def numbers(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT n FROM t ORDER BY n")).scalars())


def hold(started: threading.Event, go_on: threading.Event) -> Callable[[Connection], None]:
    """Work that keeps the writer busy, so that what comes meanwhile waits and forms a group."""

    def work(_connection: Connection) -> None:
        started.set()
        assert go_on.wait(30)

    return work


async def group(database: Database, *works: Callable[[Connection], object]) -> list[object]:
    """Run several pieces of work as one group."""
    started, go_on = threading.Event(), threading.Event()
    holding = asyncio.ensure_future(database.write(hold(started, go_on)))
    assert await asyncio.to_thread(started.wait, 30)
    waiting = [asyncio.ensure_future(database.write(work)) for work in works]
    await asyncio.sleep(0)  # each has put its work into the queue
    go_on.set()
    await holding
    return list(await asyncio.gather(*waiting, return_exceptions=True))


def transaction_number(seen: list[int]) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        seen.append(id(connection))

    return work


async def test_writes_that_wait_together_share_one_transaction(database: Database) -> None:
    seen: list[int] = []
    await group(database, *(transaction_number(seen) for _ in range(5)))
    assert len(seen) == 5
    assert len(set(seen)) == 1


async def test_a_failing_write_rolls_back_only_itself(database: Database) -> None:
    def insert_and_fail(connection: Connection) -> None:
        insert(2)(connection)
        raise LookupError("refused")

    results = await group(database, insert(1), insert_and_fail, insert(3))
    assert results[0] == 1
    assert isinstance(results[1], LookupError)
    assert results[2] == 3
    assert await database.read(numbers) == [1, 3]


async def test_a_group_whose_transaction_breaks_answers_nobody_with_success(database: Database) -> None:
    def break_the_transaction(connection: Connection) -> None:
        # As SQLite itself does when the disk is full.
        connection.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]  # sqlite3
        raise OSError("disk full")

    results = await group(database, insert(1), break_the_transaction, insert(3))
    assert all(isinstance(result, OSError) for result in results)
    assert await database.read(numbers) == []
    assert await database.write(insert(4)) == 4


async def test_writes_run_in_the_order_of_their_calls(database: Database) -> None:
    order: list[int] = []

    def note(number: int) -> Callable[[Connection], None]:
        return lambda _connection: order.append(number)

    await asyncio.gather(*(database.write(note(number)) for number in range(100)))
    assert order == list(range(100))


async def test_a_read_sees_every_write_that_returned(database: Database) -> None:
    for number in range(20):
        await database.write(insert(number))
        assert len(await database.read(numbers)) == number + 1


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match="readonly"):
        await database.read(insert(1))
    assert await database.read(numbers) == []


async def test_a_write_of_a_cancelled_caller_does_not_disturb_the_others(database: Database) -> None:
    started, go_on = threading.Event(), threading.Event()
    holding = asyncio.ensure_future(database.write(hold(started, go_on)))
    assert await asyncio.to_thread(started.wait, 30)
    cancelled, other = (asyncio.ensure_future(database.write(insert(number))) for number in (1, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    go_on.set()
    await holding
    assert await other == 2
    assert cancelled.cancelled()


async def test_read_then_write_in_one_transaction_loses_no_update(database: Database) -> None:
    await database.write(insert(0))

    def increment(connection: Connection) -> None:
        (before,) = numbers(connection)
        connection.execute(text("UPDATE t SET n = :n"), {"n": before + 1})

    await asyncio.gather(*(database.write(increment) for _ in range(50)))
    assert await database.read(numbers) == [50]


async def test_close_finishes_what_was_accepted(tmp_path: Path) -> None:
    url = database_url(str(tmp_path / "test.db"))
    database = Database(url)
    await database.start()
    await database.write(create_table)
    writes = [asyncio.ensure_future(database.write(insert(number))) for number in range(10)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == list(range(10))
    with pytest.raises(RuntimeError, match="not started"):
        await database.read(numbers)


@pytest.mark.usefixtures("database")
def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_a_path_and_both_kinds_of_url_are_databases(tmp_path: Path) -> None:
    assert database_url("keys.db").render_as_string() == "sqlite:///keys.db"
    assert database_url(f"sqlite:///{tmp_path}/keys.db").database == f"{tmp_path}/keys.db"
    assert database_url("postgresql://host/keys").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("text", ["", ":memory:", "sqlite://", "mysql://host/keys", "nonsense://"])
def test_other_databases_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        database_url(text)
