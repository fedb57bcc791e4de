"""Claims and uploads of prekeys over HTTP: how many in a second, how long one takes, what it costs; beside Synapse's.

Owns: the load, what is measured and in which order.
Does not know about: the servers' and PostgreSQL's processes, and the people, which are those of the tests; how Synapse
is run (synapse.py).

32 claimers at once, one device each, on 100 targets with one device and 100 one-time prekeys of each kind. A claim of
ours hands out two one-time prekeys, a signed one and the signed device list; Synapse's one one-time key. An upload
brings 20 one-time prekeys. Load and servers share the machine, and other work may, so those that are compared take
turns; processor time is counted beside, because it depends less on what else runs.
"""

import asyncio
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from benchmarks.harness import Row, at_least, plain
from benchmarks.http_load import Answer, Figures, Processes, load, request
from benchmarks.synapse import Synapse
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.prekey_bundle import KemPreKeyKind, PreKeyBundle
from keyserver.allowances import Allowances
from keyserver.buckets import DatabaseBuckets
from keyserver.repository.rate_limits import RateLimit, RequestLimits
from tests.claim_storm import Size, Storm
from tests.keyserver_world import TestDevice
from tests.servers.postgresql import PostgreSql

CONCURRENT, ROUNDS, UPLOADS, KEYS_OF_UPLOAD = 32, 4, 10, 20
CLAIMS = 20
"""Of each claimer in one round. All rounds together ask for less than half of the keys, so every target has some."""
_SIZE: Final = Size(users=100, devices=1, keys=100, claimers=CONCURRENT, kills=0)
_GOAL: Final = 5

Requests = Sequence[Sequence[bytes]]


class _Candidate(NamedTuple):
    """One server under load: its places, what to ask it, and what an answer must hold."""

    urls: Sequence[str]
    processes: Processes
    claims: Callable[[], Requests]
    check: Callable[[Answer], None]
    uploads: Callable[[], Requests] | None = None


def rows() -> Iterator[Row]:
    """Measure. The reference of claims is Synapse, that of the others one process on PostgreSQL."""
    with PostgreSql() as postgresql, tempfile.TemporaryDirectory() as directory:
        yield from asyncio.run(_measure(postgresql, Path(directory)))


async def _measure(postgresql: PostgreSql, directory: Path) -> list[Row]:
    one, two, sqlite = "PostgreSQL, 1 process", "PostgreSQL, 2 processes", "SQLite, 1 process"
    async with contextlib.AsyncExitStack() as stack:
        synapse = stack.enter_context(Synapse(postgresql.new_database()))
        candidates = {"Synapse": await _synapse(synapse, postgresql.pid)}
        for number, (name, database, servers) in enumerate(
            ((one, postgresql.new_database(), 1), (two, postgresql.new_database(), 2), (sqlite, None, 1))
        ):
            place = directory / str(number)
            place.mkdir()
            storm = Storm(database or str(place / "server.db"), place, _SIZE, seed=1, servers=servers)
            stack.push_async_callback(storm.close)
            await storm.start()
            candidates[name] = await _ours(storm, () if database is None else (postgresql.pid,))
        for each in candidates.values():
            await load(each.urls, each.claims(), each.processes)  # warm
        claims = await _in_turns(candidates)
        uploads = {
            name: (await load(each.urls, each.uploads(), each.processes)).figures
            for name, each in candidates.items()
            if each.uploads is not None
        }
        counting = await _counting(storm)
    result = [*_claim_rows(claims, one), *_rows("uploads", uploads, one)]
    result.append(
        plain("counting a request, of the time that a claim takes", (counting, 1e6 / claims[sqlite].rate), "us")
    )
    return result


def _claim_rows(claims: dict[str, Figures], ours: str) -> Iterator[Row]:
    rates = claims[ours].rate, claims["Synapse"].rate
    yield at_least(f"claims, {CONCURRENT} at once / Synapse", rates, "/s", _GOAL)
    for name, side in (("server", 3), ("database", 4)):
        yield plain(f"  processor time of one, {name} / Synapse", (claims[ours][side], claims["Synapse"][side]), "ms")
    yield from _rows("claims", claims, "Synapse")


def _rows(what: str, measured: dict[str, Figures], reference: str) -> Iterator[Row]:
    its = measured[reference]
    for name, mine in measured.items():
        if name != "Synapse":
            yield plain(f"{what}, {CONCURRENT} at once, {name}", (mine.rate, its.rate), "/s")
            yield plain(f"  one of them, median, {name}", (mine.p50, its.p50), "ms")
            yield plain(f"  one of them, 99th percentile, {name}", (mine.p99, its.p99), "ms")


async def _in_turns(candidates: dict[str, _Candidate]) -> dict[str, Figures]:
    """Claim from one after the other, several times; the medians of all rounds."""
    rounds: dict[str, list[Figures]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, each in candidates.items():
            loaded = await load(each.urls, each.claims(), each.processes)
            for answers in loaded.answers:
                for answer in answers:
                    if answer.status != 200:
                        raise RuntimeError(f"{name} refused a claim: {answer.status}")
                    each.check(answer)
            rounds[name].append(loaded.figures)
    return {name: Figures(*map(statistics.median, zip(*those, strict=True))) for name, those in rounds.items()}


async def _synapse(server: Synapse, database: int) -> _Candidate:
    random = Random(1)
    owners = await server.people("owner", _SIZE.users)
    claimers = await server.people("claimer", CONCURRENT)
    await server.offer(owners, _SIZE.keys, random)

    def claims() -> Requests:
        return [[server.claim(each, random.choice(owners)) for _ in range(CLAIMS)] for each in claimers]

    def check(answer: Answer) -> None:
        # It says now and then that none are left while there are some; that is the quicker answer, and counts for it.
        if b'"one_time_keys"' not in answer.body:
            raise RuntimeError(f"no answer to a claim: {answer.body.decode()}")

    return _Candidate([server.url], Processes([server.pid], [database]), claims, check)


async def _ours(storm: Storm, database: Sequence[int]) -> _Candidate:
    random = storm.random
    tokens = [await storm.token(device) for device in storm.claimers]

    def claims() -> Requests:
        return [
            [_claim(random, random.choice(storm.owners).user.user_id, each) for _ in range(CLAIMS)] for each in tokens
        ]

    def check(answer: Answer) -> None:
        (bundle,) = (PreKeyBundle.decode(from_base64url(each)) for each in json.loads(answer.body)["bundles"])
        if bundle.one_time_prekey is None or bundle.kem_prekey.kind is not KemPreKeyKind.ONE_TIME:
            raise RuntimeError("none left, while there are some")

    def uploads() -> Requests:
        pairs = zip(storm.claimers, tokens, strict=True)
        return [[_upload(device, token) for _ in range(UPLOADS)] for device, token in pairs]

    return _Candidate(storm.urls, Processes(storm.pids, database), claims, check, uploads)


def _claim(random: Random, user_id: str, token: str) -> bytes:
    body = {"user_id": user_id, "request_id": random.randbytes(16).hex()}
    return request("POST", "/v1/claims", json.dumps(body).encode(), token)


def _upload(device: TestDevice, token: str) -> bytes:
    keys = [to_base64url(key.encode()) for key in device.one_time_prekeys(KEYS_OF_UPLOAD)]
    return request("PUT", "/v1/prekeys", json.dumps({"one_time_prekeys": keys}).encode(), token)


async def _counting(storm: Storm) -> float:
    """Return the microseconds that counting one request against its user's limit takes."""
    generous = RateLimit(1_000_000, 1)
    allowances = Allowances(
        DatabaseBuckets(storm.database, storm.clock), RequestLimits(generous, generous), storm.clock
    )
    loop = asyncio.get_running_loop()
    users = [each.user.user_id for each in storm.claimers]
    begun = loop.time()
    for _ in range(100):
        for user in users:
            await allowances.request_of_user(user)
    return (loop.time() - begun) / (100 * len(users)) * 1e6
