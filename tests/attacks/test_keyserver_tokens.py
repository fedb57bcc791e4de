"""Attack: a token that is not what it claims to be. Every one is refused with 401 and opens nothing."""

import base64
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest

from e2ee.limits import HOUR_MS, MINUTE_MS
from e2ee.private_keys import DeviceSigningKeyPair
from keyserver.auth import DEVICE_TOKEN_TYPE
from tests.keyserver_world import HOST_SECRET, ORIGIN, START, TOKEN_SECRET, World, host_token, world


def public_pem() -> str:
    der = bytes.fromhex("302a300506032b6570032100") + DeviceSigningKeyPair.generate(Random(1).randbytes).public.raw
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def eddsa_server(tmp_path: Path) -> AsyncIterator[World]:
    settings = {"host_jwt_algorithm": "EdDSA", "host_jwt_secret": None, "host_jwt_public_key": public_pem()}
    async with world(tmp_path, **settings) as made:
        yield made


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims))
    return (b".".join(parts) + b".").decode()


def signed(claims: dict[str, Any], header: dict[str, Any], secret: str, algorithm: str = "HS256") -> str:
    head = unsigned(claims, header).rstrip(".")
    tag = hmac.digest(secret.encode(), head.encode(), algorithm.replace("HS", "sha"))
    return f"{head}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


def claims() -> dict[str, Any]:
    return {"sub": "alice", "iat": START // 1000, "exp": (START + HOUR_MS) // 1000}


async def assert_no_user(server: World, token: str, code: str = "token_invalid") -> None:
    """The token is good for nothing that takes a host token or either kind."""
    for method, path, body in (
        ("POST", "/v1/logins", {"device_id": "00" * 16}),
        ("GET", "/v1/device-lists?user_id=alice", None),
    ):
        response = await server.post(path, body, token, method)
        assert (response.status_code, response.json()["code"]) == (401, code)


@pytest.mark.parametrize("algorithm", ["none", "nOnE", "NONE", "", None, ["HS256"], "HS256"])
async def test_a_token_without_a_signature_is_refused(server: World, algorithm: object) -> None:
    await assert_no_user(server, unsigned(claims(), {"alg": algorithm, "typ": "JWT"}))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_algorithm_with_the_right_key_is_refused(server: World, algorithm: str) -> None:
    await assert_no_user(server, signed(claims(), {"alg": algorithm, "typ": "JWT"}, HOST_SECRET, algorithm))


async def test_algorithm_confusion_the_public_key_is_no_hmac_secret(eddsa_server: World) -> None:
    # The library refuses to sign so; an attacker does not use the library.
    for secret in (public_pem(), public_pem().strip()):
        await assert_no_user(eddsa_server, signed(claims(), {"alg": "HS256", "typ": "JWT"}, secret))


async def test_algorithm_confusion_a_foreign_ed25519_key_named_in_the_header_is_not_used(server: World) -> None:
    pair = DeviceSigningKeyPair.generate(Random(2).randbytes)
    x = base64.urlsafe_b64encode(pair.public.raw).rstrip(b"=").decode()
    header = {"alg": "EdDSA", "typ": "JWT", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}, "kid": "../../etc/passwd"}
    head = unsigned(claims(), header).rstrip(".")
    signature = base64.urlsafe_b64encode(pair.sign(head.encode())).rstrip(b"=").decode()
    await assert_no_user(server, f"{head}.{signature}")


async def test_an_expired_token_is_refused(server: World) -> None:
    token = host_token("alice", server.clock())
    server.clock.pass_ms(HOUR_MS + MINUTE_MS)
    await assert_no_user(server, token, "token_expired")


async def test_a_token_for_another_service_of_the_same_host_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, host_jwt_audience="e2ee", host_jwt_issuer="https://chat.example") as server:
        now = server.clock()
        good = {"aud": "e2ee", "iss": "https://chat.example"}
        for wrong in ({}, {"aud": "chat"}, {"aud": ["chat"]}, {"aud": "e2ee"}, good | {"iss": "https://evil.example"}):
            await assert_no_user(server, host_token("alice", now, **wrong))
        response = await server.post("/v1/device-lists?user_id=alice", None, host_token("alice", now, **good), "GET")
        assert response.status_code == 200


@pytest.mark.parametrize("change", [0, 40, -1])
async def test_a_changed_token_is_refused(server: World, change: int) -> None:
    token = host_token("alice", server.clock())
    flipped = chr(ord(token[change]) ^ 1)
    await assert_no_user(server, token[:change] + flipped + (token[change + 1 :] if change != -1 else ""))


async def test_an_endless_token_is_refused_unread(server: World) -> None:
    await assert_no_user(server, "a" * 10_000)


async def test_a_host_token_is_no_device_token_and_a_device_token_is_no_host_token(server: World) -> None:
    device, client = await server.join("alice")
    device_token = await client.device_token()
    hosts = await device.host_token()
    refused = await server.post("/v1/prekeys", None, hosts, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
    refused = await server.post("/v1/logins", {"device_id": str(device.address.device_id)}, device_token)
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")


async def test_who_may_sign_for_users_cannot_sign_device_tokens(server: World) -> None:
    _, client = await server.join("alice")
    genuine = jwt.decode(await client.device_token(), options={"verify_signature": False})
    forged = jwt.encode(genuine, HOST_SECRET, "HS256", headers={"typ": DEVICE_TOKEN_TYPE})
    refused = await server.post("/v1/prekeys", None, forged, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"ver": 1},
        {"ver": "0"},
        {"dev": "00" * 16},
        {"dev": 5},
        {"sub": "bob"},
        {"lid": "00" * 16},
        {"lid": None},
        {"exp": None},
        {"exp": "later"},
    ],
)
async def test_a_device_token_counts_only_as_it_was_issued(server: World, change: dict[str, Any]) -> None:
    # With the server's own secret: even so a token is worth no more than its device and login.
    await server.join("bob")
    _, client = await server.join("alice")
    genuine = jwt.decode(await client.device_token(), options={"verify_signature": False})
    changed = {name: value for name, value in (genuine | change).items() if value is not None}
    token = signed(changed, {"alg": "HS256", "typ": DEVICE_TOKEN_TYPE}, TOKEN_SECRET)
    refused = await server.post("/v1/prekeys", None, token, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")


async def test_an_expired_device_token_is_refused(server: World) -> None:
    _, client = await server.join("alice")
    token = await client.device_token()
    server.clock.pass_ms(15 * MINUTE_MS)
    refused = await server.post("/v1/prekeys", None, token, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_expired")


async def test_a_token_of_another_server_is_refused(server: World, tmp_path: Path) -> None:
    other_directory = tmp_path / "other"
    other_directory.mkdir()
    async with world(other_directory, origin="https://other.example", other_origins=(ORIGIN,)) as other:
        _, client = await other.join("alice")
        token = await client.device_token()
    await server.join("alice")
    refused = await server.post("/v1/prekeys", None, token, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
