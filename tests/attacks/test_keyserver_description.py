"""Attack: whatever the OpenAPI description allows, and forbids. No 5xx, and no answer that it does not describe.

schemathesis makes the requests and judges the answers; seeded, so that each run is the same.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from keyserver.app import create_app
from tests.keyserver_process import ServerProcess, join, real_device
from tests.keyserver_world import settings as settings_of

EXAMPLES = 25
"""Requests for each operation and kind."""

CHECKS: list[Callable[..., Any]] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


def described() -> list[str]:
    """All operations of a server, by the description that it would give. Nothing is opened for it."""
    paths = create_app(settings_of(Path("never-opened.db")), dev_issuer=True).fastapi.openapi()["paths"]
    return sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)


OPERATIONS = described()
WITHOUT_INPUT = ("GET /healthz", "GET /readyz")


class Site(NamedTuple):
    """A server, its description, and tokens by the names that the description has for them."""

    operations: dict[str, Any]
    tokens: dict[str, str]


async def start(process: ServerProcess) -> dict[str, str]:
    """Start a server with one device in it; return tokens."""
    await process.start()
    async with httpx.AsyncClient() as http:
        device = real_device("alice")
        client = process.client(device, http)
        await join(client, device)
        await client.publish_prekeys(device.upload(3))
        host = await http.post(f"{process.url}/dev/token", json={"user": "alice"})
        return {"DeviceToken": await client.device_token(), "HostToken": str(host.json()["token"])}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    with asyncio.Runner() as runner:
        tokens = runner.run(start(process))
        schema = schemathesis.openapi.from_url(f"{process.url}/openapi.json")
        operations = {each.ok().label: each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)}
        yield Site(operations, tokens)
        runner.run(process.aclose())


def run(site: Site, name: str, mode: GenerationMode) -> set[int]:
    """Send requests to one operation; return the statuses that came."""
    operation = site.operations[name]
    kinds = [kind for each in operation.definition.raw.get("security", ()) for kind in each]
    headers = {"Authorization": f"Bearer {site.tokens[kinds[0]]}"} if kinds else {}
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(headers=headers)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    return statuses


def test_the_description_names_the_operations_that_are_tried_here(site: Site) -> None:
    assert set(site.operations) == set(OPERATIONS) > set(WITHOUT_INPUT)


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_as_described_get_answers_as_described(site: Site, name: str) -> None:
    assert run(site, name, GenerationMode.POSITIVE)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_INPUT])
def test_requests_that_are_not_as_described_are_refused_as_described(site: Site, name: str) -> None:
    assert run(site, name, GenerationMode.NEGATIVE)


def test_a_described_answer_that_is_not_given_would_be_noticed(site: Site, tmp_path: Path) -> None:
    operation = site.operations["GET /healthz"]
    case = operation.Case()
    answer = case.call()
    body = answer.response_bytes if hasattr(answer, "response_bytes") else answer.content
    assert body == b'{"status":"ok"}'
    answer.status_code = 500
    with pytest.raises(BaseException, match=r"(?i)server error"):
        case.validate_response(answer, checks=CHECKS)
