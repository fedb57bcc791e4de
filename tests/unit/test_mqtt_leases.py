"""Who serves which bucket: every bucket has one bridge at a time, none is left alone, the load is shared."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, Table

from keyserver.database import sqlite_engine
from tests.databases import postgresql
from transport_adapters.server.mqtt_accounts import BUCKETS
from transport_adapters.server.mqtt_leases import Bridge, Holding, clear, release, renew
from transport_adapters.server.tables import define_tables

LEASE_MS = 6_000


@dataclass
class Bridges:
    """Bridges at one database, and their clock."""

    engine: Engine
    table: Table
    now: int = 1_000_000
    holdings: dict[int, Holding] = field(default_factory=dict)

    def renew(self, number: int) -> Holding:
        with self.engine.begin() as connection:
            holding = renew(connection, self.table, bridge(number), BUCKETS, self.now)
        self.holdings[number] = holding
        return holding

    def hand_over(self, number: int) -> None:
        """Do what a bridge does with what it should give away."""
        surplus = self.holdings[number].surplus
        with self.engine.begin() as connection:
            release(connection, self.table, bridge(number), surplus)
        self.holdings[number] = Holding(self.holdings[number].held - surplus, frozenset())

    def settle(self, *numbers: int) -> None:
        for _ in range(3):
            for number in numbers:
                self.renew(number)
                self.hand_over(number)


def bridge(number: int) -> Bridge:
    return Bridge(bytes([number]) * 16, LEASE_MS)


def opened(engine: Engine) -> Bridges:
    metadata = sqlalchemy.MetaData()
    table = define_tables(metadata).leases
    metadata.create_all(engine)
    return Bridges(engine, table)


@pytest.fixture(params=["sqlite", "postgresql"])
def bridges(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bridges]:
    if request.param == "sqlite":
        engine = sqlite_engine(sqlalchemy.make_url(f"sqlite:///{tmp_path / 'leases.db'}"))
    else:
        url = postgresql().new_database().replace("postgresql:", "postgresql+psycopg:")
        engine = sqlalchemy.create_engine(url)
    yield opened(engine)
    engine.dispose()


def test_the_only_bridge_has_every_bucket_and_keeps_it(bridges: Bridges) -> None:
    everything = Holding(frozenset(range(BUCKETS)), frozenset())
    assert bridges.renew(1) == everything
    bridges.now += LEASE_MS - 1
    assert bridges.renew(1) == everything


def test_a_second_bridge_gets_its_share_when_the_first_has_let_go(bridges: Bridges) -> None:
    bridges.renew(1)
    assert bridges.renew(2).held == frozenset()
    assert len(bridges.renew(1).surplus) == BUCKETS // 2
    assert bridges.renew(2).held == frozenset()  # not before they are given back
    bridges.hand_over(1)
    assert bridges.renew(2).held == frozenset(range(BUCKETS)) - bridges.renew(1).held


def test_what_a_dead_bridge_had_goes_to_those_that_are_left(bridges: Bridges) -> None:
    bridges.settle(1, 2)
    bridges.now += LEASE_MS - 1
    bridges.renew(1)
    bridges.now += 1
    assert bridges.renew(1).held == frozenset(range(BUCKETS))


def test_a_bridge_that_slept_over_its_lease_learns_what_it_has_lost(bridges: Bridges) -> None:
    bridges.settle(1)
    bridges.now += LEASE_MS
    bridges.settle(2)
    assert bridges.renew(1).held == frozenset()


def test_a_bridge_that_leaves_gives_everything_back(bridges: Bridges) -> None:
    bridges.settle(1, 2)
    with bridges.engine.begin() as connection:
        release(connection, bridges.table, bridge(1))
    assert bridges.renew(2).held == frozenset(range(BUCKETS))


def test_a_server_that_is_the_only_one_waits_for_no_lease(bridges: Bridges) -> None:
    bridges.settle(1)
    with bridges.engine.begin() as connection:
        clear(connection, bridges.table)
    assert bridges.renew(2).held == frozenset(range(BUCKETS))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["renew", "hand over", "sleep", "die"])), max_size=25))
def test_no_bucket_has_two_bridges_whatever_they_do(steps: list[tuple[int, str]]) -> None:
    bridges = opened(sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool))
    renewed_at: dict[int, int] = {}
    for number, step in steps:
        if step == "renew":
            bridges.renew(number)
            renewed_at[number] = bridges.now
        elif step == "hand over":
            if number in bridges.holdings and bridges.now < renewed_at[number] + LEASE_MS:
                bridges.hand_over(number)
        elif step == "sleep":
            bridges.now += LEASE_MS // 3
        else:
            bridges.holdings.pop(number, None)
        valid = [each.held for bridge, each in bridges.holdings.items() if bridges.now < renewed_at[bridge] + LEASE_MS]
        assert sum(map(len, valid)) == len(frozenset().union(*valid))
    alive = sorted(bridges.holdings)
    if alive:
        bridges.now += LEASE_MS
        bridges.settle(*alive)
        held = [len(bridges.renew(number).held) for number in alive]
        assert sum(held) == BUCKETS
        assert max(held) <= -(-BUCKETS // len(alive))
    bridges.engine.dispose()
