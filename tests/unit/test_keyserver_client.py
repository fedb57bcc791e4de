"""The client against a server that is made up answer by answer: faults, hostile answers, logging in."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import pytest

from e2ee.wire.codec import to_base64url
from e2ee.wire.device_list import DeviceListHash
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle
from keyserver.client import (
    CounterBehindError,
    DeviceListConflictError,
    InsecureServerUrlError,
    KeyServerClient,
    KeyServerError,
    KeyServerRefusedError,
    KeyServerUnavailableError,
    MalformedAnswerError,
    PreKeyConflictError,
    RateLimitedError,
)
from tests.keyserver_world import IMPATIENT, Clock, TestDevice, TestUser

SERVER = "https://chat.example"
COUNTS = {"one_time": 1, "one_time_kem": 0, "signed_prekey_id": 5, "last_resort_id": None}

Handler = Callable[[httpx.Request], httpx.Response]


def user(name: str = "alice") -> TestUser:
    return TestUser(UserId(name), Random(name), Clock())


class Script:
    """A server that answers logins properly and everything else as told."""

    def __init__(self, *answers: httpx.Response | Exception, expires_in: int = 900) -> None:
        self.answers = list(answers)
        self.expires_in = expires_in
        self.asked: list[str] = []
        self.tokens = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path.endswith("/v1/logins"):
            return httpx.Response(200, json={"login_id": "ab" * 16})
        if request.url.path.endswith("/v1/tokens"):
            self.tokens += 1
            return httpx.Response(
                200, json={"token": f"token {self.tokens}", "expires_at": 1, "expires_in": self.expires_in}
            )
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(handler: Handler, device: TestDevice | None = None, server: str = SERVER, **changes: Any) -> KeyServerClient:
    device = device or user().device()
    return KeyServerClient(
        server,
        device.address,
        host_token=device.host_token,
        sign=device.signing.sign,
        next_counter=device.next_counter,
        http=httpx.AsyncClient(transport=httpx.MockTransport(handler)),
        options=replace(IMPATIENT, **changes),
    )


def problem(status: int, code: str, **members: object) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "a sentence", "status": status, **members})


@pytest.mark.parametrize(
    "server",
    [
        "http://chat.example",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://10.0.0.1:8000",
        "http://user@localhost",
        "ftp://chat.example",
        "chat.example",
        "https://",
        "https://chat.example?q=1",
        "https://chat.example#f",
        "",
    ],
)
def test_plaintext_beyond_this_machine_and_odd_urls_are_refused(server: str) -> None:
    with pytest.raises(InsecureServerUrlError):
        client(Script(), server=server)


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "https://x.example/a/"]
)
async def test_loopback_plaintext_and_https_are_accepted(server: str) -> None:
    script = Script(httpx.Response(200, json=COUNTS))
    await client(script, server=server).prekey_counts()
    assert script.asked[-1] in ("GET /v1/prekeys", "GET /a/v1/prekeys")


async def test_a_network_fault_is_tried_again() -> None:
    script = Script(httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, json=COUNTS))
    counts = await client(script).prekey_counts()
    assert (counts.one_time, counts.signed_prekey_id, counts.last_resort_id) == (1, 5, None)


async def test_after_the_last_attempt_the_server_counts_as_unavailable() -> None:
    script = Script(*(httpx.ReadTimeout("too slow") for _ in range(IMPATIENT.attempts)))
    with pytest.raises(KeyServerUnavailableError):
        await client(script).prekey_counts()
    assert script.answers == []


async def test_a_refusal_is_not_tried_again() -> None:
    script = Script(problem(409, "device_retired"), httpx.Response(200, json=COUNTS))
    with pytest.raises(KeyServerRefusedError) as refused:
        await client(script).prekey_counts()
    assert (refused.value.code, refused.value.status) == ("device_retired", 409)
    assert len(script.answers) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (problem(409, "device_list_conflict", seq=4, hash="cd" * 32), DeviceListConflictError),
        (problem(409, "prekey_conflict", prekey_id=4, stored_hash="cd" * 32), PreKeyConflictError),
        (problem(409, "assertion_replayed", highest_counter=4), CounterBehindError),
        (problem(429, "rate_limited"), RateLimitedError),
    ],
)
async def test_refusals_that_programs_act_on_have_types(answer: httpx.Response, expected: type[KeyServerError]) -> None:
    with pytest.raises(expected):
        await client(Script(answer)).prekey_counts()


async def test_the_wait_of_a_rate_limit_is_passed_on() -> None:
    limited = httpx.Response(429, json={"code": "rate_limited", "detail": ""}, headers={"Retry-After": "17"})
    with pytest.raises(RateLimitedError) as refused:
        await client(Script(limited)).prekey_counts()
    assert refused.value.retry_after == 17


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={}),
        httpx.Response(200, json=COUNTS | {"one_time": -1}),
        httpx.Response(200, json=COUNTS | {"one_time": True}),
        httpx.Response(200, json=COUNTS | {"one_time": 1.0}),
        httpx.Response(200, json=COUNTS | {"one_time": 1 << 63}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=b" " * 1024 * 1024 + json.dumps(COUNTS).encode()),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(409, text="conflict"),
        httpx.Response(409, json={"code": 1}),
        problem(409, "device_list_conflict", seq=4, hash="cd"),
        problem(409, "prekey_conflict", prekey_id="4", stored_hash="cd" * 32),
    ],
)
async def test_a_malformed_answer_is_one_typed_error(answer: httpx.Response) -> None:
    with pytest.raises(MalformedAnswerError):
        await client(Script(answer)).prekey_counts()


async def test_a_compressed_answer_is_refused_unread() -> None:
    packed = httpx.Response(200, stream=httpx.ByteStream(b"\x1f\x8b"), headers={"Content-Encoding": "gzip"})
    with pytest.raises(MalformedAnswerError, match="compressed"):
        await client(Script(packed)).prekey_counts()


async def test_redirects_are_not_followed() -> None:
    elsewhere = httpx.Response(307, headers={"Location": "https://evil.example"}, json={"code": "x", "detail": ""})
    with pytest.raises(KeyServerRefusedError):
        await client(Script(elsewhere)).prekey_counts()


async def test_concurrent_callers_log_in_once() -> None:
    script = Script()
    subject = client(script)
    tokens = await asyncio.gather(*(subject.device_token() for _ in range(10)))
    assert set(tokens) == {"token 1"}
    assert script.asked == ["POST /v1/logins", "POST /v1/tokens"]


async def test_a_token_is_renewed_a_minute_before_it_expires_without_the_hosts_token() -> None:
    clock = [0.0]
    script = Script(expires_in=900)
    subject = client(script, clock=lambda: clock[0])
    await subject.device_token()
    clock[0] = 839.0
    assert await subject.device_token() == "token 1"
    clock[0] = 840.0
    assert await subject.device_token() == "token 2"
    assert script.asked == ["POST /v1/logins", "POST /v1/tokens", "POST /v1/tokens"]


async def test_a_token_that_the_server_forgot_is_replaced_once() -> None:
    script = Script(problem(401, "token_invalid"), httpx.Response(200, json=COUNTS))
    await client(script).prekey_counts()
    assert script.tokens == 2
    again = Script(problem(401, "token_invalid"), problem(401, "token_invalid"))
    with pytest.raises(KeyServerRefusedError):
        await client(again).prekey_counts()


async def test_a_login_that_ended_is_opened_again() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/v1/logins":
            return httpx.Response(200, json={"login_id": f"{len(asked):02x}" * 16})
        if request.url.path == "/v1/tokens" and asked.count("/v1/tokens") == 2:
            return problem(401, "login_ended")
        return httpx.Response(200, json={"token": "t", "expires_at": 1, "expires_in": 0})

    subject = client(handler)
    await subject.device_token()
    await subject.device_token()
    assert asked == ["/v1/logins", "/v1/tokens", "/v1/tokens", "/v1/logins", "/v1/tokens"]


async def test_every_assertion_has_a_fresh_counter_even_after_a_lost_answer() -> None:
    counters: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/logins":
            return httpx.Response(200, json={"login_id": "ab" * 16})
        counters.append(json.loads(request.content)["counter"])
        if len(counters) == 1:
            raise httpx.ReadError("lost")
        return httpx.Response(200, json={"token": "t", "expires_at": 1, "expires_in": 900})

    subject = client(handler)
    with pytest.raises(KeyServerUnavailableError):
        await subject.device_token()
    assert await subject.device_token() == "t"
    assert counters == [1, 2]


def lists_page(*texts: str, newest: int) -> httpx.Response:
    return httpx.Response(200, json={"device_lists": list(texts), "newest_seq": newest})


async def test_a_history_is_fetched_page_by_page() -> None:
    alice = user()
    texts = [to_base64url(alice.next_list().encode()) for _ in range(3)]
    script = Script(lists_page(*texts[:2], newest=3), lists_page(texts[2], newest=3))
    assert await client(script).device_lists(alice.user_id) == tuple(alice.lists)


async def test_lists_that_were_not_asked_for_are_refused() -> None:
    alice, bob = user("alice"), user("bob")
    first, second = (to_base64url(alice.next_list().encode()) for _ in range(2))
    of_bob = to_base64url(bob.next_list().encode())
    for answer in (
        lists_page(of_bob, newest=1),
        lists_page(second, first, newest=2),
        lists_page(first, first, newest=2),
        lists_page(newest=1),
        lists_page("AAAA", newest=1),
        lists_page("not base64url!", newest=1),
    ):
        with pytest.raises(MalformedAnswerError):
            await client(Script(answer)).device_lists(alice.user_id)


async def test_an_endless_history_is_cut_off() -> None:
    alice = user()
    device = alice.device()

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return Script()(request)
        start = int(request.url.params["from_seq"])
        page = [
            alice.sign_list([device], seq=start + i, previous_hash=DeviceListHash(bytes([1]) * 32)) for i in range(64)
        ]
        return lists_page(*(to_base64url(each.encode()) for each in page), newest=1 << 40)

    with pytest.raises(MalformedAnswerError, match="without end"):
        await client(handler).device_lists(alice.user_id, from_seq=2)


def bundle(device: TestDevice, address: DeviceAddress | None = None) -> str:
    prekeys = PreKeyBundle(address or device.address, device.signed_prekey(), None, device.kem_prekey())
    return to_base64url(prekeys.encode())


async def test_bundles_that_were_not_asked_for_are_refused() -> None:
    bob, mallory = user("bob"), user("mallory").device()
    phone, laptop = bob.device(), bob.device()
    own = to_base64url(bob.next_list(phone, laptop).encode())
    for fields in (
        {"device_list": None, "bundles": [bundle(mallory)]},
        {"device_list": own, "bundles": [bundle(phone), bundle(phone)]},
        {"device_list": own, "bundles": [bundle(phone), bundle(laptop)]},
        {"device_list": to_base64url(mallory.user.next_list().encode()), "bundles": []},
        {"device_list": own, "bundles": "none"},
        {"device_list": own, "bundles": [1]},
        {"device_list": 1, "bundles": []},
    ):
        script = Script(httpx.Response(200, json=fields))
        with pytest.raises(MalformedAnswerError):
            await client(script).claim(bob.user_id, bytes(16), [phone.address.device_id])


async def test_a_claim_is_repeated_under_the_same_request_id() -> None:
    bodies: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/claims":
            return Script()(request)
        bodies.append(request.content)
        if len(bodies) == 1:
            raise httpx.ReadTimeout("lost")
        return httpx.Response(200, json={"device_list": None, "bundles": []})

    await client(handler).claim(UserId("bob"), bytes(16), [DeviceId(bytes(16))])
    assert bodies[0] == bodies[1]


def test_errors_hold_neither_tokens_nor_keys() -> None:
    errors = [
        KeyServerUnavailableError("ReadTimeout"),
        RateLimitedError(3.0),
        CounterBehindError(4),
        DeviceListConflictError(1, bytes(32)),
        PreKeyConflictError(1, bytes(32)),
    ]
    assert all(error.code and str(error) for error in errors)
    with pytest.raises(TypeError, match="abstract"):
        KeyServerError()
