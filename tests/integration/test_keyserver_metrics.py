"""Metrics: they say what happened, hold nobody's name, and are served where only the watcher is."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from e2ee.wire.identifiers import UserId
from keyserver import app as application, logs, metrics as metrics_module
from keyserver.metrics_server import metrics_server
from tests.client_world import client_world
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import World, world
from tests.server_process import ServerProcess


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def samples(text: bytes) -> dict[str, float]:
    """What Prometheus would read: each sample by its name and labels."""
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def surveyed(server: World) -> dict[str, float]:
    """The metrics, after a look at the database."""
    services = server.app.services
    services.context.metrics.surveyed(await services.database.read(application.survey))
    return samples(services.metrics())


async def test_claims_show_who_had_run_out(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(one_time=1, one_time_kem=1))
    _, alices = await server.join("alice")
    for number in range(3):
        await alices.claim(UserId("bob"), number.to_bytes(16, "big"))
    found = await surveyed(server)
    assert found["e2ee_claims_total"] == 3
    assert found['e2ee_claimed_bundles_total{kem="one_time",one_time="yes"}'] == 1
    assert found['e2ee_claimed_bundles_total{kem="last_resort",one_time="no"}'] == 2
    assert found['e2ee_request_seconds_count{operation="claimBundles",status="200"}'] == 3


async def test_gauges_count_users_devices_and_those_without_prekeys(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(one_time=1, one_time_kem=0))
    await server.join("carol")
    pending = bob.user.device()
    await server.client(pending).register_device(pending.signing.public, pending.identity.public)
    found = await surveyed(server)
    assert found["e2ee_users"] == 2
    assert (found["e2ee_active_devices"], found["e2ee_pending_devices"], found["e2ee_retired_devices"]) == (2, 1, 0)
    assert found["e2ee_without_one_time_prekeys"] == 1
    assert found["e2ee_without_one_time_kem_prekeys"] == 2
    assert found["e2ee_inboxes"] == 3
    assert found["e2ee_logins"] == 2


async def test_refusals_are_counted_by_their_code_at_the_door_and_inside(tmp_path: Path) -> None:
    async with world(tmp_path) as server:
        await server.post("/v1/prekeys", None, "no token", "GET")
        await server.post("/v1/tokens", {"user_id": "alice"})
        await server.http.get("/healthz", headers={"Origin": "https://evil.example"})
        found = samples(server.app.services.metrics())
        assert found['e2ee_refusals_total{code="token_invalid",side="api"}'] == 1
        assert found['e2ee_refusals_total{code="invalid_request",side="api"}'] == 1
        assert found['e2ee_refusals_total{code="origin_refused",side="front"}'] == 1


async def test_the_relay_counts_deliveries_connections_inboxes_and_refusals(tmp_path: Path) -> None:
    async with client_world(tmp_path) as running:
        services = running.services
        bob, alice = await running.open("bob"), await running.open("alice")
        await alice.client.send("bob", "hello")
        assert await bob.read() == ["hello"]
        found = samples(services.metrics())
        assert found["e2ee_connections"] == 2
        assert found["e2ee_delivery_seconds_count"] >= 1
        await services.log_out("bob")
        assert samples(services.metrics())['e2ee_refusals_total{code="token_invalid",side="relay"}'] == 1
        await bob.client.aclose()
        await alice.client.send("bob", "while you are away")
        await asyncio.wait_for(alice.client.flushed(), 30)
        numbers = await services.database.read(application.survey)
        assert numbers["inbox_envelopes"] >= 1
        assert numbers["inbox_most_bytes"] > 256
        assert numbers["inbox_nearly_full"] == 0


async def test_no_metric_holds_a_name_a_device_an_address_or_a_token(server: World) -> None:
    bob, bobs = await server.join("bob-whose-name-is-nobodys-business")
    await bobs.publish_prekeys(bob.upload(1))
    token = await bobs.device_token()
    await server.post("/v1/device-lists?user_id=somebody-else", None, token, "GET")
    await server.post("/v1/nothing/bob-whose-name", None, token, "GET")
    text = server.app.services.metrics().decode()
    for secret in ("bob-whose", "somebody", str(bob.address.device_id), token, "127.0.0.1"):
        assert secret not in text
    labels = set(re.findall(r"(\w+)=\"", text))
    assert labels == {"le", "operation", "status", "side", "code", "kem", "one_time"} & labels


async def test_the_database_is_looked_at_only_while_somebody_reads(server: World) -> None:
    metrics = server.app.services.context.metrics
    server.app.services.metrics()
    assert metrics.is_read
    metrics.surveyed({"users": 1})
    assert not metrics.is_read


async def test_a_survey_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "SURVEY_SECONDS", 0)
    asked = asyncio.Event()

    class Broken:
        rounds = 0

        async def read(self, _work: object) -> None:
            self.rounds += 1
            if self.rounds == 3:
                asked.set()
            raise OSError("disk")

    broken = Broken()
    counted = metrics_module.Metrics(lambda: 0)
    surveying = metrics_module.keep_surveying(broken, application.survey, counted)  # type: ignore[arg-type]  # breaks
    task = asyncio.create_task(surveying)
    await asyncio.wait_for(asked.wait(), 30)
    task.cancel()


def test_the_listener_answers_get_metrics_and_nothing_else() -> None:
    with metrics_server("127.0.0.1", 0, lambda: b"e2ee_users 1\n") as port, httpx.Client() as client:
        answer = client.get(f"http://127.0.0.1:{port}/metrics")
        assert (answer.status_code, answer.content) == (200, b"e2ee_users 1\n")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        for method, path in (("GET", "/"), ("POST", "/metrics"), ("GET", "/metrics/../healthz"), ("GET", "/v1/tokens")):
            assert client.request(method, f"http://127.0.0.1:{port}{path}").status_code in (404, 501)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


async def test_a_server_process_serves_metrics_apart_from_everything_else(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, metrics_port="0")
    await asyncio.to_thread(process.start)
    try:
        (place,) = re.findall(r"metrics on (http://127\.0\.0\.1:\d+/metrics)", process.log.read_text())
        async with httpx.AsyncClient() as client:
            assert samples((await client.get(place)).content)["e2ee_connections"] == 0
            assert (await client.get(f"{process.url}/metrics")).status_code == 404
        assert await asyncio.to_thread(process.stop) == 0
    finally:
        process.kill()


# --- Logs ----------------------------------------------------------------------------------------------------


def record_of(error: Exception) -> logging.LogRecord:
    try:
        try:
            raise error
        except ValueError as cause:
            raise RuntimeError(f"again {cause}") from cause
    except RuntimeError:
        return logging.LogRecord("keyserver", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())


@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter()])
def test_an_exceptions_own_words_stay_out_of_the_log_and_its_place_gets_in(formatter: logging.Formatter) -> None:
    text = formatter.format(record_of(ValueError("the plaintext of a message, and a token")))
    assert "plaintext" not in text
    assert "token" not in text
    assert "RuntimeError" in text
    assert "ValueError" in text
    assert "test_keyserver_metrics.py:" in text


def test_an_event_has_a_name_and_fields_of_its_own() -> None:
    record = logging.LogRecord("keyserver", logging.INFO, __file__, 1, "starting", (), None)
    record.__dict__.update(logs.event("starting", port=8000, tls=True))
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["event"], line["port"], line["tls"], line["message"]) == ("starting", 8000, True, "starting")
    assert isinstance(line["time"], int)
