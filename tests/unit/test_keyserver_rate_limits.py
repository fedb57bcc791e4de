"""Token buckets: a burst, then one token per interval, and how long to wait."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Connection, create_engine, func, select

from keyserver.repository.rate_limits import RateLimit, forget_full, take
from keyserver.tables import metadata, rate_limits

LIMIT = RateLimit(burst=3, interval_ms=1000)
NOW = 1_800_000_000_000


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    engine = create_engine(f"sqlite:///{tmp_path}/limits.db")
    connection = engine.connect()
    metadata.create_all(connection, [rate_limits])
    return connection


def test_a_burst_passes_and_the_next_waits_one_interval(connection: Connection) -> None:
    assert [take(connection, "a", LIMIT, NOW) for _ in range(4)] == [0, 0, 0, 1000]


def test_a_refusal_costs_nothing(connection: Connection) -> None:
    waits = [take(connection, "a", LIMIT, NOW) for _ in range(10)]
    assert waits[3:] == [1000] * 7
    assert take(connection, "a", LIMIT, NOW + 1000) == 0


def test_tokens_return_one_by_one(connection: Connection) -> None:
    for _ in range(3):
        take(connection, "a", LIMIT, NOW)
    assert take(connection, "a", LIMIT, NOW + 999) == 1
    assert take(connection, "a", LIMIT, NOW + 1000) == 0
    assert take(connection, "a", LIMIT, NOW + 1000) == 1000


def test_names_do_not_share_a_bucket(connection: Connection) -> None:
    for _ in range(4):
        take(connection, "a", LIMIT, NOW)
    assert take(connection, "b", LIMIT, NOW) == 0


def test_only_full_buckets_are_forgotten(connection: Connection) -> None:
    take(connection, "a", LIMIT, NOW)
    take(connection, "b", LIMIT, NOW + 500)
    assert forget_full(connection, NOW + 1000) == 1
    assert connection.execute(select(rate_limits.c.name)).scalars().all() == ["b"]


@given(st.lists(st.integers(0, 3000), max_size=40))
def test_never_more_than_burst_plus_one_per_interval(pauses: list[int]) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection, [rate_limits])
        now, taken = NOW, 0
        for pause in pauses:
            now += pause
            taken += take(connection, "a", LIMIT, now) == 0
        assert taken <= LIMIT.burst + (now - NOW) // LIMIT.interval_ms
        assert connection.execute(select(func.count()).select_from(rate_limits)).scalar_one() <= 1
    engine.dispose()
