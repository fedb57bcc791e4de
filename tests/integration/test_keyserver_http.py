"""What every endpoint has in common: problems, headers, health, and the description of all of it."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.keyserver_world import HOST_SECRET, TOKEN_SECRET, World, host_token, world

DEV_SECRET = HOST_SECRET


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    body = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"].endswith(code)
    assert body["title"]
    assert body["detail"]


async def test_unknown_paths_and_methods_are_problems(server: World) -> None:
    assert_problem(await server.http.get("/v1/nothing"), 404, "not_found")
    assert_problem(await server.http.get("/v1/devices/"), 404, "not_found")
    assert_problem(await server.http.get("/docs"), 404, "not_found")
    assert_problem(await server.http.delete("/v1/devices"), 405, "method_not_allowed")


async def test_a_request_without_a_token_is_asked_for_one(server: World) -> None:
    for method, path in (("GET", "/v1/prekeys"), ("GET", "/v1/device-lists?user_id=alice")):
        response = await server.http.request(method, path)
        assert_problem(response, 401, "token_missing")
        assert response.headers["www-authenticate"] == "Bearer"
    basic = await server.http.get("/v1/prekeys", headers={"Authorization": "Basic YTpi"})
    assert_problem(basic, 401, "token_missing")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 30_000, b'{"device_id": 1' + b"0" * 5000 + b"}", b"NaN"],
)
async def test_a_body_that_is_not_the_described_json_is_a_problem(server: World, content: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {host_token('alice', server.clock())}"}
    response = await server.http.post("/v1/logins", content=content, headers=headers)
    assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"device_id": "AB" * 16},
        {"device_id": "ab" * 15},
        {"device_id": 5},
        {"device_id": "ab" * 16, "more": 1},
        {"device_id": None},
        {"device_id": "ab" * 16 + "\n"},
    ],
)
async def test_a_body_of_another_form_is_a_problem_that_does_not_repeat_it(server: World, body: dict[str, Any]) -> None:
    response = await server.post("/v1/logins", body, host_token("alice", server.clock()))
    assert_problem(response, 422, "invalid_request")
    assert "abab" not in response.text.lower()


async def test_wire_bytes_that_do_not_decode_are_a_problem_with_their_own_code(server: World) -> None:
    device, client = await server.join("alice")
    token = await client.device_token()
    cases = {"AAAA": "malformed_message", "A": "malformed_message", "AB": "malformed_message"}
    for value, code in cases.items():
        assert_problem(await server.post("/v1/device-lists", {"device_list": value}, token, "PUT"), 422, code)
    key = {"device_id": "ab" * 16, "device_signing_key": "A" * 43, "identity_key": "_" * 42 + "8"}
    assert_problem(await server.post("/v1/devices", key, await device.host_token()), 422, "invalid_public_key")


async def test_a_failure_inside_tells_nothing_outside_and_no_values_to_the_log(
    server: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, client = await server.join("alice")
    token = await client.device_token()
    await server.app.services.database.write(lambda connection: connection.execute(text("DROP TABLE e2ee_prekeys")))
    with caplog.at_level(logging.DEBUG):
        response = await server.post("/v1/prekeys", None, token, "GET")
    assert_problem(response, 500, "internal")
    assert "prekeys" not in response.text.replace("/v1/prekeys", "")
    records = [record for record in caplog.records if record.name == "keyserver"]
    assert len(records) == 1
    assert "OperationalError in /v1/prekeys" in caplog.text
    assert "alice" not in caplog.text


async def test_logs_hold_no_token_and_no_key_material_at_any_level(
    server: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        device, client = await server.join("alice")
        await client.publish_prekeys(device.upload(2, 1))
        await client.claim(device.user.user_id, bytes(16))
        refused = await server.post("/v1/prekeys", None, "not a token", "GET")
    assert_problem(refused, 401, "token_invalid")
    for secret in (TOKEN_SECRET, HOST_SECRET, await client.device_token(), "not a token"):
        assert secret not in caplog.text
    assert "alice" not in "".join(record.getMessage() for record in caplog.records if record.name != "httpx")


async def test_answers_are_neither_cached_nor_sniffed(server: World) -> None:
    _, client = await server.join("alice")
    response = await server.post("/v1/prekeys", None, await client.device_token(), "GET")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_health_and_readiness(tmp_path: Path) -> None:
    async with world(tmp_path) as server:
        assert (await server.http.get("/healthz")).json() == {"status": "ok"}
        assert (await server.http.get("/readyz")).json() == {"status": "ok"}
        await server.app.services.database.close()
        assert (await server.http.get("/healthz")).status_code == 200
        assert_problem(await server.http.get("/readyz"), 503, "not_ready")


async def test_the_built_in_issuer_exists_only_when_asked_for(server: World) -> None:
    assert_problem(await server.post("/dev/token", {"user": "alice"}), 404, "not_found")


async def test_the_description_is_complete(server: World) -> None:
    described = (await server.http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.")
    operations = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(names) == len(set(names)) > 10
    for path, method, operation in operations:
        place = f"{method} {path}"
        assert operation["description"], place
        responses = operation["responses"]
        assert "204" in responses or _schema(responses["200"], "application/json"), place
        for status in _refusals(path, method):
            fields = _schema(responses[str(status)], "application/problem+json")["properties"]
            assert {"type", "title", "status", "code", "detail"} <= set(fields), place
        assert "application/json" not in responses.get("422", {}).get("content", {}), place
        if path.startswith("/v1/") and path != "/v1/tokens":
            assert operation["security"], place


async def test_every_reference_in_the_description_leads_somewhere(server: World) -> None:
    described = (await server.http.get("/openapi.json")).json()
    for reference in _references(described):
        target: Any = described
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


async def test_the_codes_of_all_problems_are_distinct() -> None:
    from keyserver.problems import Problem, UnacceptableBytesProblem, UnauthorizedProblem

    kinds: list[type[Problem]] = []
    waiting: list[type[Problem]] = [Problem]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        kinds += subclasses
    own = [kind for kind in kinds if kind not in (UnauthorizedProblem, UnacceptableBytesProblem)]
    assert len({kind.code for kind in own}) == len(own) > 20


def _refusals(path: str, method: str) -> list[int]:
    if not path.startswith("/v1/"):
        return []
    return [401, 500] + ([413, 422] if method != "get" else [])


def _schema(response: dict[str, Any], media_type: str) -> dict[str, Any]:
    schema: dict[str, Any] = response["content"][media_type]["schema"]
    return schema


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in _references(inner)]
    return [each for inner in value for each in _references(inner)] if isinstance(value, list) else []
