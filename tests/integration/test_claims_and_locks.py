"""A row that somebody holds for long on PostgreSQL: only those who need it fail, and cleaning waits for none."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import Connection

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.database import Database, database_url
from keyserver.migrations.runner import upgrade
from keyserver.postgresql import LOCK_TIMEOUT_MS, DatabaseUnavailableError, wait_for_rows
from keyserver.repository import rate_limits
from keyserver.repository.claim_groups import Given
from keyserver.repository.rate_limits import RateLimit
from keyserver.service import claims
from keyserver.service.claims import ClaimLimits, ClaimService, Question
from keyserver.service.policy import ContactPolicy
from tests.databases import postgresql
from tests.keyserver_world import START

HOLD_BUCKET = "UPDATE e2ee_rate_limits SET full_at = full_at WHERE name = 'claim bob'"
HOLD_REQUEST = (
    "INSERT INTO e2ee_claims (user_id, device_id, request_id, question, created_at)"
    r" VALUES ('claimer2', decode(repeat('00', 16), 'hex'), decode(repeat('02', 16), 'hex'), '', 0)"
)


@pytest.fixture
def url() -> str:
    return postgresql().new_database()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(database_url(url))
    await database.start()
    await database.write(upgrade, patience=None)
    yield database
    await database.close()


@contextmanager
def held(url: str, statement: str) -> Iterator[None]:
    """Hold the rows that a statement changes."""
    with psycopg.connect(url) as other:
        other.execute(statement)
        yield
        other.rollback()


def service(database: Database) -> ClaimService:
    limit = RateLimit(100, 1000)
    return ClaimService(database, lambda: START, ContactPolicy(), ClaimLimits(limit, limit, limit))


async def ask(service: ClaimService, user: str, number: int) -> object:
    """Claim, each by somebody else: the bucket of one claimer is held while his claim waits for another."""
    claimer = DeviceAddress(UserId(f"claimer{number}"), DeviceId(bytes(16)))
    return await service.claim(claimer, Question(UserId(user), None), bytes([number]) * 16)


@pytest.mark.parametrize("held_rows", [HOLD_BUCKET, HOLD_REQUEST], ids=["bucket", "request"])
async def test_a_row_that_is_held_for_long_fails_those_of_a_group_who_need_it_and_nobody_else(
    database: Database, url: str, held_rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "GROUP_LOCK_MS", 100)
    monkeypatch.setattr(claims, "HASTY_LOCK_MS", 100)
    asked = service(database)
    await ask(asked, "bob", 1)
    with held(url, held_rows):
        together = [ask(asked, user, number) for number, user in enumerate(("bob", "carol", "dave"), 2)]
        async with asyncio.timeout(LOCK_TIMEOUT_MS / 1000):
            bobs, *others = await asyncio.gather(*together, return_exceptions=True)
    assert isinstance(bobs, DatabaseUnavailableError)
    assert all(isinstance(each, Given) for each in others)
    assert await ask(asked, "bob", 2) is not None, "it was told to try again, and nothing of it was kept"


async def test_forgetting_full_buckets_waits_for_nobody(database: Database, url: str) -> None:
    await database.write(lambda on: [rate_limits.take(on, name, RateLimit(1, 1), START) for name in ("a", "b", "c")])
    with held(url, "UPDATE e2ee_rate_limits SET full_at = full_at WHERE name = 'b'"):

        def forget(on: Connection) -> int:
            wait_for_rows(on, 100)
            return rate_limits.forget_full(on, START + 1)

        assert await database.write(forget) == 2
    assert await database.write(lambda on: rate_limits.forget_full(on, START + 1)) == 1
