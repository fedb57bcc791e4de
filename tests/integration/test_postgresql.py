"""The database on PostgreSQL: what is run again, what is not, and what ends by itself."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from keyserver import postgresql as postgresql_module
from keyserver.database import Database, database_url
from tests.databases import postgresql


@pytest.fixture
def url() -> str:
    return postgresql().new_database()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(database_url(url))
    await database.start()
    await database.write(lambda on: on.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")))
    await database.write(lambda on: on.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))
    yield database
    await database.close()


def add(connection: Connection, row: int) -> None:
    connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": row})


def total(connection: Connection) -> int:
    return int(connection.execute(text("SELECT sum(n) FROM t")).scalar_one())


async def test_a_transaction_that_met_another_is_run_again_and_counts_once(database: Database) -> None:
    both_hold_one = threading.Barrier(2, timeout=30)
    runs: list[int] = []

    def crossing(first: int, second: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            runs.append(first)
            add(connection, first)
            if runs.count(first) == 1:
                both_hold_one.wait()
            add(connection, second)

        return work

    await asyncio.gather(database.write(crossing(1, 2)), database.write(crossing(2, 1)))
    # On a busy machine it may do so more than once.
    assert len(runs) >= 3, "PostgreSQL ends one of the two, and that one ran again"
    assert await database.read(total) == 4


async def test_work_that_fails_otherwise_runs_once_and_leaves_nothing(database: Database) -> None:
    runs = 0

    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        add(connection, 1)
        connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        await database.write(work)
    assert runs == 1
    assert await database.read(total) == 0


async def test_connections_that_the_server_dropped_are_made_anew(database: Database) -> None:
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    for _ in range(3):
        await asyncio.gather(*(database.write(lambda on: add(on, 1)) for _ in range(8)))
        await database.write(lambda on: on.execute(text(f"SELECT pg_terminate_backend(pid) {others}")))
    assert await database.read(total) == 24


async def test_who_stops_in_the_middle_of_a_transaction_holds_no_row_for_long_and_runs_again_when_he_goes_on(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_module, "IDLE_TIMEOUT_MS", 100)
    stopping = Database(database_url(url))
    await stopping.start()
    holds, goes_on = threading.Event(), threading.Event()
    runs = 0

    def stops(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        add(connection, 1)
        holds.set()
        goes_on.wait(30)
        add(connection, 2)

    stopped = asyncio.create_task(stopping.write(stops))
    await asyncio.to_thread(holds.wait, 30)
    await database.write(lambda on: add(on, 1))
    goes_on.set()
    await stopped
    await stopping.close()
    assert (runs, await database.read(total)) == (2, 3)


async def test_no_statement_runs_for_ever(database: Database) -> None:
    timeout = await database.read(lambda on: on.execute(text("SHOW statement_timeout")).scalar_one())
    assert timeout == "10s"
