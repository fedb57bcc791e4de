"""Requests are counted over all nodes, in the database and in Redis alike, and few of them cost a write."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from e2ee.wire.identifiers import UserId
from keyserver import allowances, buckets as places
from keyserver.allowances import HELD_MS, Allowances
from keyserver.app import MAILBOX_TABLES
from keyserver.buckets import Buckets, DatabaseBuckets, FallingBack, OwnBuckets
from keyserver.database import Database, database_url
from keyserver.migrations.runner import upgrade
from keyserver.peers import Peer
from keyserver.problems import RateLimitedProblem
from keyserver.redis_buckets import RedisBuckets
from keyserver.repository.rate_limits import RateLimit, RequestLimits
from tests.databases import postgresql
from tests.keyserver_world import Clock
from tests.servers.redis import Redis

assert MAILBOX_TABLES is not None  # the migrations know all tables

ALICE = UserId("alice")
PEER = Peer(ip_address("192.0.2.7"), is_encrypted=True, through_proxy=False)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "redis", "own"])
async def buckets(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[Clock], Buckets]]:
    if request.param == "own":
        yield OwnBuckets
    elif request.param == "redis":
        url, made = request.getfixturevalue("redis").url, []

        def make(clock: Clock) -> Buckets:
            made.append(RedisBuckets(url, str(tmp_path), clock))
            return made[-1]

        yield make
        for each in made:
            await each.close()
    else:
        where = str(tmp_path / "keys.db") if request.param == "sqlite" else postgresql().new_database()
        database = Database(database_url(where))
        await database.start()
        await database.write(upgrade)
        yield lambda clock: DatabaseBuckets(database, clock)
        await database.close()


class Counting:
    """Notes for how many it was asked."""

    def __init__(self, inner: Buckets) -> None:
        self.inner = inner
        self.asked: list[int] = []

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        self.asked.append(number)
        return await self.inner.take(name, limit, number)

    async def close(self) -> None:
        await self.inner.close()


class Far(Counting):
    """Answers after everybody who is there has asked."""

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().take(name, limit, number)


class Broken:
    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        raise ConnectionError

    async def close(self) -> None:
        pass


def limits(user: RateLimit) -> RequestLimits:
    return RequestLimits(user, per_address=RateLimit(1, 1_000))


async def requests(counted: Allowances, number: int) -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(number):
        try:
            await counted.request_of_user(ALICE)
        except RateLimitedProblem:
            continue
        passed += 1
    return passed


async def test_every_kind_of_bucket_gives_the_burst_and_then_what_time_brings(
    buckets: Callable[[Clock], Buckets],
) -> None:
    clock, limit = Clock(), RateLimit(5, 1_000)
    bucket = buckets(clock)
    assert [await bucket.take("a", limit, 1) for _ in range(7)] == [0] * 5 + [1_000] * 2
    assert await bucket.take("b", limit, 1) == 0
    clock.pass_ms(1_500)
    assert [await bucket.take("a", limit, 1) for _ in range(2)] == [0, 500]
    assert await bucket.take("a", limit, 3) == 2_500
    clock.pass_ms(100_000)
    assert await bucket.take("a", limit, 5) == 0
    assert await bucket.take("a", limit, 1) == 1_000


async def test_two_nodes_count_together(buckets: Callable[[Clock], Buckets]) -> None:
    clock = Clock()
    shared = buckets(clock)
    nodes = [Allowances(shared, limits(RateLimit(100, 60_000)), clock) for _ in range(2)]
    passed = [await requests(node, 1) for _ in range(100) for node in nodes]
    assert sum(passed) == 100


async def test_a_user_who_sends_fast_costs_few_writes_and_gets_exactly_the_burst() -> None:
    clock = Clock()
    counting = Counting(OwnBuckets(clock))
    counted = Allowances(counting, limits(RateLimit(1_000, 100)), clock)
    assert await requests(counted, 900) == 900
    assert counting.asked == [20, 40] + [80] * 11
    assert await requests(counted, 200) == 100
    with pytest.raises(RateLimitedProblem) as refused:
        await counted.request_of_user(ALICE)
    assert refused.value.retry_after == 1
    clock.pass_ms(300)
    assert await requests(counted, 10) == 3


async def test_requests_of_one_moment_wait_for_one_portion_and_leave_the_rest_to_other_nodes() -> None:
    clock = Clock()
    far = Far(OwnBuckets(clock))
    node, other = [Allowances(far, limits(RateLimit(1_000, 100)), clock) for _ in range(2)]
    for _ in range(5):
        await asyncio.gather(*(node.request_of_user(ALICE) for _ in range(100)))
    assert far.asked == [20, 40, 80, 80, 80, 80, 80, 80]
    assert await requests(other, 500) == 460


async def test_as_many_requests_of_one_moment_pass_as_there_are_tokens() -> None:
    clock = Clock()
    far = Far(OwnBuckets(clock))
    nodes = [Allowances(far, limits(RateLimit(150, 60_000)), clock) for _ in range(2)]
    asked = (nodes[number % 2].request_of_user(ALICE) for number in range(300))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers.count(None) == 150
    assert len([each for each in answers if isinstance(each, RateLimitedProblem)]) == 150


async def test_who_leaves_takes_no_tokens_along_that_others_wait_for() -> None:
    clock = Clock()
    counted = Allowances(Far(OwnBuckets(clock)), limits(RateLimit(1_000, 100)), clock)
    first, second = [asyncio.create_task(counted.request_of_user(ALICE)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_tokens_that_a_node_took_are_not_kept_for_later() -> None:
    clock = Clock()
    counting = Counting(OwnBuckets(clock))
    counted = Allowances(counting, limits(RateLimit(1_000, 100)), clock)
    await requests(counted, 21)
    clock.pass_ms(HELD_MS)
    await requests(counted, 1)
    assert counting.asked == [20, 40, 20], "and it takes few again from who has become slow"


async def test_users_and_addresses_are_counted_apart_and_this_machine_is_not() -> None:
    clock = Clock()
    counted = Allowances(OwnBuckets(clock), limits(RateLimit(1, 1_000)), clock)
    await counted.request_of_user(ALICE)
    await counted.request_of_user(UserId("bob"))
    await counted.request_of_address(PEER)
    with pytest.raises(RateLimitedProblem):
        await counted.request_of_address(PEER)
    await counted.request_of_address(PEER._replace(address=ip_address("192.0.2.8")))
    for _ in range(5):
        await counted.request_of_address(PEER._replace(address=ip_address("127.0.0.1")))


async def test_while_redis_is_away_each_node_counts_by_itself() -> None:
    clock = Clock()
    counted = Allowances(FallingBack(Broken(), clock), limits(RateLimit(5, 1_000)), clock)
    assert await requests(counted, 10) == 5


async def test_names_that_an_attacker_makes_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (allowances, places):
        monkeypatch.setattr(module, "MAX_NAMES", 10)
    clock = Clock()
    own = OwnBuckets(clock)
    counted = Allowances(own, limits(RateLimit(1_000, 1)), clock)
    for number in range(100):
        await counted.request_of_user(UserId(f"user{number}"))
    assert len(counted._held) <= 10
    assert len(own._full_at) <= 10
