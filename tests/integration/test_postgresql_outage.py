"""PostgreSQL goes away and comes back under load: 503 in between, nothing lost, nothing twice, no restart of ours."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from e2ee.wire.codec import from_base64url
from e2ee.wire.prekey_bundle import PreKeyBundle
from keyserver import database as database_module
from keyserver.app import create_app
from keyserver.database import Database, database_url
from keyserver.postgresql import POOL_THREADS, DatabaseUnavailableError
from tests.keyserver_world import Clock, TestDevice, World, running, settings
from tests.servers.postgresql import PostgreSql

RAISED = dict.fromkeys(("claim_pair_burst", "claim_claimer_burst", "claim_target_burst", "upload_burst"), 1000000)
CLAIMERS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSql]:
    """A cluster of this module's own: the others' goes on running."""
    with PostgreSql() as server:
        yield server


@pytest.fixture
async def world(cluster: PostgreSql, tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    given = settings(tmp_path / "unused.db", **RAISED).model_copy(update={"database": cluster.new_database()})
    async with running(create_app(given, now=clock), clock) as made:
        yield made


@pytest.fixture
async def database(cluster: PostgreSql) -> AsyncIterator[Database]:
    database = Database(database_url(cluster.new_database()))
    await database.start()
    await database.write(lambda on: on.execute(text("CREATE TABLE t (n INTEGER)")))
    yield database
    await database.close()


class Load:
    """Claimers that claim one after the other, each request until it is answered with something else than 503."""

    def __init__(self, world: World, owner: TestDevice, tokens: list[str]) -> None:
        self._world, self._owner, self._tokens = world, owner, tokens
        self.answers: dict[str, list[str]] = {}
        self.statuses: Counter[int] = Counter()
        self._over, self._answered = asyncio.Event(), asyncio.Event()
        self._tasks = [asyncio.create_task(self._claim(number)) for number in range(CLAIMERS)]

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def until(self, status: int, more: int) -> None:
        """Wait for so many more answers of a status."""
        wanted = self.statuses[status] + more
        async with asyncio.timeout(60):
            while self.statuses[status] < wanted:
                self._answered.clear()
                await self._answered.wait()

    async def ask(self, claimer: int, request_id: str) -> httpx.Response:
        body = {"user_id": self._owner.address.user_id, "request_id": request_id}
        return await self._world.post("/v1/claims", body, self._tokens[claimer])

    async def _claim(self, claimer: int) -> None:
        number = 0
        while not self._over.is_set():
            request_id = f"{claimer:016x}{number:016x}"
            response = await self.ask(claimer, request_id)
            self.statuses[response.status_code] += 1
            self._answered.set()
            if response.status_code == 503:
                assert_is_unavailable(response)
                await asyncio.sleep(0.02)
                continue
            self.answers[request_id] = response.json()["bundles"]
            number += 1


async def start_again(cluster: PostgreSql) -> None:
    cluster.launch()
    await asyncio.to_thread(cluster.wait)


def assert_is_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["code"] == "not_ready"


async def test_postgresql_killed_and_started_again_under_load_loses_nothing_and_hands_no_key_out_twice(
    world: World, cluster: PostgreSql
) -> None:
    owner, owners = await world.join("owner")
    published: set[int] = set()
    for _ in range(2):
        upload = owner.upload(90)
        await owners.publish_prekeys(upload)
        published |= {each.prekey_id for each in upload.one_time_prekeys}
    claimers = [await world.join(f"claimer{number}") for number in range(CLAIMERS)]
    load = Load(world, owner, [await client.device_token() for _, client in claimers])
    for _ in range(2):
        await load.until(200, 20)
        await asyncio.to_thread(cluster.kill)
        await load.until(503, 2 * CLAIMERS)
        assert_is_unavailable(await world.http.get("/readyz"))
        assert (await world.http.get("/healthz")).status_code == 200
        await start_again(cluster)
        await load.until(200, 20)
        assert (await world.http.get("/readyz")).status_code == 200
    await load.end()
    assert set(load.statuses) == {200, 503}
    again = {request: (await load.ask(int(request[:16], 16), request)).json()["bundles"] for request in load.answers}
    assert again == load.answers, "what was answered before, between and after stands"
    handed = [key for bundles in load.answers.values() for key in one_time_ids(bundles)]
    assert len(set(handed)) == len(handed), "handed out twice"
    assert set(handed) <= published
    # No request was given up, so each key that is gone went to somebody.
    assert (await owners.prekey_counts()).one_time == len(published) - len(handed)


def one_time_ids(bundles: list[str]) -> Iterator[int]:
    for bundle in bundles:
        found = PreKeyBundle.decode(from_base64url(bundle)).one_time_prekey
        if found is not None:
            yield found.prekey_id


async def test_a_write_whose_commit_got_no_answer_is_not_run_again(database: Database, cluster: PostgreSql) -> None:
    runs = 0

    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(text("INSERT INTO t VALUES (1)"))
        if runs == 1:
            end_before_commit(connection)

    with pytest.raises(DatabaseUnavailableError):
        await database.write(work)
    assert runs == 1
    await database.write(work)
    assert await database.read(count) == 1
    assert cluster.answers()


def end_before_commit(connection: Connection) -> None:
    """Let the server end this connection after the last statement, so that the COMMIT is what finds it out."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    url = connection.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    import psycopg

    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


async def test_a_write_whose_connection_is_lost_before_the_commit_is_run_again_and_counts_once(
    database: Database,
) -> None:
    runs = 0

    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(text("INSERT INTO t VALUES (1)"))
        if runs == 1:
            end_before_commit(connection)
        connection.execute(text("INSERT INTO t VALUES (2)"))

    await database.write(work)
    assert runs == 2
    assert await database.read(count) == 2


async def test_a_lock_that_is_not_given_up_ends_the_waiting_and_not_the_server(database: Database) -> None:
    await database.write(lambda on: on.execute(text("INSERT INTO t VALUES (1)")))
    held, go_on = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        connection.execute(text("UPDATE t SET n = 2"))
        held.set()
        go_on.wait(30)

    def impatient(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = 50"))
        connection.execute(text("UPDATE t SET n = 3"))

    holding = asyncio.ensure_future(database.write(hold))
    assert await asyncio.to_thread(held.wait, 30)
    with pytest.raises(DatabaseUnavailableError):
        await database.write(impatient)
    go_on.set()
    await holding
    assert await database.read(lambda on: on.execute(text("SELECT n FROM t")).scalar_one()) == 2
    assert await database.read(lambda on: on.execute(text("SHOW lock_timeout")).scalar_one()) == "5s"


async def test_a_database_that_keeps_its_connections_and_answers_nothing_is_given_up(
    world: World, cluster: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = await world.join("alice")
    token = await client.device_token()
    monkeypatch.setattr(database_module, "PATIENCE_S", 0.3)
    cluster.freeze()
    try:
        answers = [world.post("/v1/prekeys", None, token, "GET") for _ in range(3 * POOL_THREADS)]
        for response in await asyncio.gather(*answers, world.http.get("/readyz")):
            assert_is_unavailable(response)
    finally:
        cluster.thaw()
    monkeypatch.undo()
    assert (await world.http.get("/readyz")).status_code == 200
    assert (await world.post("/v1/prekeys", None, token, "GET")).status_code == 200


async def test_a_request_over_the_relays_http_endpoints_is_told_to_come_back(world: World, cluster: PostgreSql) -> None:
    _, client = await world.join("alice")
    token = await client.device_token()
    await asyncio.to_thread(cluster.kill)
    try:
        response = await world.post("/e2ee/frames", {"frames": []}, token)
    finally:
        await start_again(cluster)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    # The token counts again: the relay says that there is no such connection.
    assert (await world.post("/e2ee/frames", {"frames": []}, token)).status_code == 404


def count(connection: Connection) -> Any:
    return connection.execute(text("SELECT count(*) FROM t")).scalar_one()
