"""Attack: requests that are read in two ways, by us and by whoever stands before us; bodies that no client sends."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.keyserver_process import ServerProcess
from tests.keyserver_world import World, host_token, world

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = ServerProcess(tmp_path_factory.mktemp("server"))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(made.start())
    yield made
    loop.run_until_complete(made.aclose())
    loop.close()


async def exchange(process: ServerProcess, sent: bytes) -> list[bytes]:
    """Send bytes; return the statuses of all answers, once the server has ended the connection."""
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return re.findall(rb"HTTP/1\.1 (\d{3})", answer)


def request(*headers: bytes, body: bytes = b"", line: bytes = b"POST /v1/tokens HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: x", b"Content-Type: application/json", *headers, b"", body])


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        # One body, two ends: the rest would be a request of its own to whoever believes the other one.
        (request(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), [b"422"]),
        (request(b"Transfer-Encoding: chunked", b"Content-Length: 60", body=b"0\r\n\r\n" + SMUGGLED), [b"422"]),
        (request(b"Content-Length: 2", b"Content-Length: 60", body=b"{}" + SMUGGLED), [b"400"]),
        (request(b"Content-Length: 2, 60", body=b"{}" + SMUGGLED), [b"400"]),
        (request(b"Content-Length: +2", body=b"{}" + SMUGGLED), [b"400"]),
        (request(b"Content-Length: 0x2", body=b"{}" + SMUGGLED), [b"400"]),
        (request(b"Content-Length: -1", body=b"{}" + SMUGGLED), [b"400"]),
        (request(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED), [b"400"]),
        (request(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + SMUGGLED), [b"400"]),
        (
            request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + SMUGGLED),
            [b"400"],
        ),
        (request(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED), [b"400"]),
        (request(b"Transfer-Encoding: chunked", body=b"2;x\r\n{}\r\n-1\r\n\r\n" + SMUGGLED), [b"400"]),
        (request(b"X: a\x00b", b"Content-Length: 2", body=b"{}" + SMUGGLED), [b"400"]),
        (request(line=b"POST /v1/tokens HTTP/1.1\r\nHost: y", body=SMUGGLED), [b"400"]),
        (request(line=b"POST  /v1/tokens HTTP/1.1"), [b"400"]),
    ],
)
async def test_a_request_with_two_readings_gets_one_answer_and_ends_the_connection(
    process: ServerProcess, sent: bytes, answers: list[bytes]
) -> None:
    assert await exchange(process, sent) == answers


async def test_two_honest_requests_on_one_connection_get_two_answers(process: ServerProcess) -> None:
    assert len(await exchange(process, SMUGGLED + request(b"Content-Length: 2", b"Connection: close", body=b"{}"))) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1%2Ftokens",
        "/v1%2ftokens",
        "/%76%31/tokens",
        "//v1/tokens",
        "/v1//tokens",
        "/v1/./tokens",
        "/x/../v1/tokens",
        "/v1/tokens/..",
        "/v1/tokens%00",
        "/v1\\tokens",
        "/v1%5Ctokens",
        "/healthz/%2e%2e/v1/tokens",
        "http://127.0.0.1/v1/tokens",
    ],
)
async def test_no_other_spelling_of_a_path_reaches_an_endpoint(process: ServerProcess, path: str) -> None:
    (status,) = await exchange(
        process, request(b"Content-Length: 2", b"Connection: close", body=b"{}", line=f"POST {path} HTTP/1.1".encode())
    )
    assert status in (b"404", b"422", b"400")
    # Of those, 422 is also what the endpoint says to an empty object: what was said is looked at.
    async with httpx.AsyncClient() as client:
        plain = await client.post(f"{process.url}/v1/tokens", json={})
    assert "user_id" in plain.json()["detail"]
    assert "user_id" not in await said(process, path)


async def said(process: ServerProcess, path: str) -> str:
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request(b"Content-Length: 2", b"Connection: close", body=b"{}", line=f"POST {path} HTTP/1.1".encode()))
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer.decode()


@pytest.mark.parametrize(
    "path", ["/V1/tokens", "/v1/tokens/", "/v1/tokens;a=b", "/v1/Tokens", "/v1/tokens.json", "/v1"]
)
async def test_a_path_that_is_almost_an_endpoints_is_not_found(server: World, path: str) -> None:
    assert (await server.http.post(path, json={})).status_code == 404


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"])
async def test_no_header_changes_method_or_path(server: World, header: str) -> None:
    answer = await server.http.get("/healthz", headers={header: "DELETE" if "Method" in header else "/v1/tokens"})
    assert answer.json() == {"status": "ok"}


async def test_two_tokens_are_as_good_as_none(server: World) -> None:
    token = host_token("alice", server.clock())
    pairs = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")]
    for headers in (pairs, pairs[::-1], [pairs[0], pairs[0]]):
        answer = await server.http.get("/v1/device-lists?user_id=a", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")


@pytest.mark.parametrize(
    "query", ["user_id=alice&user_id=bob", "user_id=alice&%75ser_id=bob", "user_id=a&from_seq=1&from_seq=2"]
)
async def test_a_name_that_comes_twice_in_a_query_is_refused(server: World, query: str) -> None:
    answer = await server.post(f"/v1/device-lists?{query}", None, host_token("alice", server.clock()), "GET")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


BODY = '{"device_id": "00000000000000000000000000000000"}'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"device_id": "11111111111111111111111111111111", ' + BODY[1:], "application/json"),
        (BODY.encode("utf-16"), "application/json"),
        (BODY.encode("utf-32"), "application/json"),
        ("\ufeff" + BODY, "application/json"),
        (BODY.encode() + b"\xff", "application/json"),
        ('{"device_id": NaN}', "application/json"),
        ('{"device_id": Infinity}', "application/json"),
        ('{"device_id": ' + "1" * 10_000 + "}", "application/json"),
        ("[" * 30_000 + "]" * 30_000, "application/json"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "application/json"),
        (BODY + BODY, "application/json"),
        (BODY + "\x00", "application/json"),
        (f"[{BODY}]", "application/json"),
        ("null", "application/json"),
        ("", "application/json"),
        (BODY, "text/plain"),
        (BODY, "application/x-www-form-urlencoded"),
        ("device_id=00000000000000000000000000000000", "application/x-www-form-urlencoded"),
        (BODY, "multipart/form-data; boundary=x"),
        (BODY, "application/json, text/plain"),
    ],
)
async def test_a_body_has_one_reading_or_is_refused_without_being_quoted(
    server: World, body: str | bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {host_token('alice', server.clock())}"}
    answer = await server.http.post("/v1/logins", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "0000000" not in answer.text
    assert "1111111" not in answer.text
    plain = await server.http.post("/v1/logins", content=BODY, headers=headers | {"Content-Type": "application/json"})
    assert plain.json()["code"] == "device_not_registered"


async def test_a_compressed_body_is_not_unpacked(server: World) -> None:
    import gzip

    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * 50_000_000)
    answer = await server.http.post("/v1/tokens", content=bomb, headers=headers)
    assert answer.status_code in (413, 422)


# --- Valid bodies in which something was changed -------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
@settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_valid_body_with_anything_changed_in_it_gets_a_named_refusal_or_is_valid_again(
    changing: "Changing", data: st.DataObject
) -> None:
    method, path, token, body = data.draw(st.sampled_from(changing.requests))
    changed = json.loads(json.dumps(body))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(sorted(changed) or ["new"]))
        kind = data.draw(st.sampled_from(["replace", "remove", "add", "cut", "flip"]))
        value = changed.get(place)
        if kind == "remove":
            changed.pop(place, None)
        elif kind == "add":
            changed[data.draw(st.text(max_size=10))] = data.draw(JSON)
        elif kind in ("cut", "flip") and isinstance(value, str) and value:
            at = data.draw(st.integers(0, len(value) - 1))
            other = data.draw(st.characters(codec="ascii"))
            changed[place] = value[:at] if kind == "cut" else value[:at] + other + value[at + 1 :]
        else:
            changed[place] = data.draw(JSON)
    answer = await changing.server.post(path, changed, token, method)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert set(answer.json()) >= {"type", "title", "status", "code", "detail"}


class Changing:
    """A server, and requests that it would accept."""

    def __init__(self, server: World, requests: list[tuple[str, str, str | None, dict[str, Any]]]) -> None:
        self.server = server
        self.requests = requests


@pytest.fixture
async def changing(tmp_path: Path) -> AsyncIterator[Changing]:
    from e2ee.wire.codec import to_base64url

    limits = dict.fromkeys(
        ("user_burst", "claim_pair_burst", "claim_claimer_burst", "list_burst", "upload_burst"), 10_000
    )
    async with world(tmp_path, **limits) as server:
        alice, client = await server.join("alice")
        host, device = host_token("alice", server.clock()), await client.device_token()
        login = (await server.post("/v1/logins", {"device_id": str(alice.address.device_id)}, host)).json()["login_id"]
        upload = alice.upload(2, 1)
        prekeys = {
            "signed_prekey": to_base64url(upload.signed_prekey.encode()) if upload.signed_prekey else None,
            "one_time_prekeys": [to_base64url(each.encode()) for each in upload.one_time_prekeys],
            "last_resort": to_base64url(upload.last_resort.encode()) if upload.last_resort else None,
            "one_time_kem_prekeys": [to_base64url(each.encode()) for each in upload.one_time_kem_prekeys],
        }
        keys = {
            "device_signing_key": to_base64url(alice.signing.public.raw),
            "identity_key": to_base64url(alice.identity.public.raw),
        }
        yield Changing(
            server,
            [
                ("POST", "/v1/devices", host, {"device_id": "11" * 16, **keys}),
                ("POST", "/v1/logins", host, {"device_id": str(alice.address.device_id)}),
                ("POST", "/v1/tokens", None, alice.assertion(login, 10**6)),
                ("PUT", "/v1/device-lists", device, {"device_list": to_base64url(alice.user.lists[-1].encode())}),
                ("PUT", "/v1/prekeys", device, prekeys),
                ("POST", "/v1/claims", device, {"user_id": "alice", "request_id": "22" * 16, "device_ids": None}),
            ],
        )
