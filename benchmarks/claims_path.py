"""Claims and uploads of prekeys over HTTP: how many in a second, and how long one takes, on each database.

Owns: the load, what is measured.
Does not know about: the servers' and PostgreSQL's processes, and the people, which are those of the tests.

32 claimers at once, one device each, on 100 targets with one device and 100 one-time prekeys of each kind; so a claim
hands out two one-time prekeys. An upload brings 20 one-time prekeys. Load and servers share the machine.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import Row, plain
from tests.claim_storm import Request, Size, Storm
from tests.servers.postgresql import PostgreSql

CONCURRENT, CLAIMS, UPLOADS, KEYS_OF_UPLOAD = 32, 2_000, 320, 20
_SIZE: Final = Size(users=100, devices=1, keys=100, claimers=CONCURRENT, kills=0)


class Figures(NamedTuple):
    """Requests per second, and the time of one in milliseconds."""

    rate: float
    p50: float
    p99: float


class Measured(NamedTuple):
    """What one kind of server does."""

    claims: Figures
    uploads: Figures


def rows() -> Iterator[Row]:
    """Measure. The reference of every row is one process on PostgreSQL."""
    with PostgreSql() as postgresql, tempfile.TemporaryDirectory() as directory:
        kinds = {
            "PostgreSQL, 1 process": (postgresql.new_database(), 1),
            "PostgreSQL, 2 processes": (postgresql.new_database(), 2),
            "SQLite, 1 process": (str(Path(directory) / "server.db"), 1),
        }
        measured = {}
        for number, (name, (database, servers)) in enumerate(kinds.items()):
            place = Path(directory) / str(number)
            place.mkdir()
            measured[name] = asyncio.run(_measure(database, place, servers))
    reference = measured["PostgreSQL, 1 process"]
    for name, ours in measured.items():
        for what, mine, its in zip(Measured._fields, ours, reference, strict=True):
            yield plain(f"{what}, {CONCURRENT} at once, {name}", (mine.rate, its.rate), "/s")
            yield plain(f"  one of them, median, {name}", (mine.p50, its.p50), "ms")
            yield plain(f"  one of them, 99th percentile, {name}", (mine.p99, its.p99), "ms")


async def _measure(database: str, place: Path, servers: int) -> Measured:
    storm = Storm(database, place, _SIZE, seed=1, servers=servers)
    try:
        await storm.start()
        tokens = [await storm.token(device) for device in storm.claimers]
        uploads = [
            [device.one_time_prekeys(KEYS_OF_UPLOAD) for _ in range(UPLOADS // CONCURRENT)] for device in storm.claimers
        ]

        async def claim(claimer: int, _number: int) -> None:
            target = storm.random.choice(storm.owners).user
            request = Request(claimer, target, storm.random.randbytes(16))
            if not await storm.ask(request):
                raise RuntimeError("a claim got no answer")
            # A quarter of all keys is asked for, so every target has some.
            if len(request.one_time_keys()) != 2:
                raise RuntimeError("none left, while there are some")

        async def upload(claimer: int, number: int) -> None:
            await storm.upload(uploads[claimer][number], tokens[claimer])

        await _load(claim, 10)  # warm
        return Measured(await _load(claim, CLAIMS // CONCURRENT), await _load(upload, UPLOADS // CONCURRENT))
    finally:
        await storm.close()


async def _load(once: Callable[[int, int], Awaitable[None]], times: int) -> Figures:
    taken: list[float] = []

    async def one_after_the_other(claimer: int) -> None:
        for number in range(times):
            start = time.perf_counter()
            await once(claimer, number)
            taken.append((time.perf_counter() - start) * 1e3)

    begun = time.perf_counter()
    await asyncio.gather(*map(one_after_the_other, range(CONCURRENT)))
    return _figures(taken, time.perf_counter() - begun)


def _figures(taken: Sequence[float], seconds: float) -> Figures:
    percentiles = statistics.quantiles(taken, n=100)
    return Figures(len(taken) / seconds, percentiles[49], percentiles[98])
