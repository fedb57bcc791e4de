"""The host application's tokens, both algorithms, as configured."""

import base64
from pathlib import Path
from random import Random

import jwt
import pytest

from e2ee.limits import HOUR_MS
from e2ee.private_keys import DeviceSigningKeyPair
from keyserver.host_token import NO_CLAIMS, Claims, HostIdentity, HostJwtVerifier, host_token_verifier, host_user
from keyserver.problems import TokenExpiredProblem, TokenInvalidProblem
from keyserver.settings import Settings
from tests.keyserver_world import HOST_SECRET, START, TOKEN_SECRET, Clock, host_token


def pem(name: str, der: bytes) -> str:
    return f"-----BEGIN {name}-----\n{base64.b64encode(der).decode()}\n-----END {name}-----\n"


# RFC 8410: everything before the key's 32 bytes is the same for every Ed25519 key.
PAIR = DeviceSigningKeyPair.generate(Random(1).randbytes)
PRIVATE_PEM = pem("PRIVATE KEY", bytes.fromhex("302e020100300506032b657004220420") + PAIR.seed.expose())
PUBLIC_PEM = pem("PUBLIC KEY", bytes.fromhex("302a300506032b6570032100") + PAIR.public.raw)

URL = "https://login.example/keys"


def hs256(claims: Claims = NO_CLAIMS, leeway_seconds: int = 0, clock: Clock | None = None) -> HostJwtVerifier:
    return HostJwtVerifier("HS256", HOST_SECRET, clock or Clock(), claims, leeway_seconds)


async def test_hs256_gives_user_and_time_of_issue() -> None:
    assert await hs256()(host_token("alice", START)) == HostIdentity("alice", START // 1000)


async def test_eddsa_gives_user_and_time_of_issue() -> None:
    verify = HostJwtVerifier("EdDSA", PUBLIC_PEM, Clock())
    token = jwt.encode({"sub": "alice", "iat": START // 1000, "exp": START // 1000 + 60}, PRIVATE_PEM, "EdDSA")
    assert await verify(token) == HostIdentity("alice", START // 1000)


async def test_a_token_without_time_of_issue_counts_as_issued_at_zero() -> None:
    token = jwt.encode({"sub": "alice", "exp": START // 1000 + 60}, HOST_SECRET, "HS256")
    assert (await hs256()(token)).issued_at == 0


@pytest.mark.parametrize("missing", ["sub", "exp"])
async def test_subject_and_expiry_are_required(missing: str) -> None:
    claims = {"sub": "alice", "exp": START // 1000 + 60}
    del claims[missing]
    with pytest.raises(TokenInvalidProblem):
        await hs256()(jwt.encode(claims, HOST_SECRET, "HS256"))


async def test_leeway_covers_clocks_that_differ() -> None:
    clock = Clock()
    token = host_token("alice", START)
    clock.pass_ms(HOUR_MS + 4_000)
    assert (await hs256(leeway_seconds=5, clock=clock)(token)).user_id == "alice"
    clock.pass_ms(1_000)
    with pytest.raises(TokenExpiredProblem):
        await hs256(leeway_seconds=5, clock=clock)(token)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_from_the_future_is_refused(claim: str) -> None:
    later = START // 1000 + 60
    with pytest.raises(TokenInvalidProblem):
        await hs256()(host_token("alice", START, **{claim: later}))
    assert await hs256(leeway_seconds=60)(host_token("alice", START, **{claim: later}))


@pytest.mark.parametrize("value", ["soon", None, True, -1, 1e300, float("inf")])
async def test_a_time_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(TokenInvalidProblem):
        await hs256()(host_token("alice", START, exp=value))


async def test_issuer_and_audience_are_checked_when_configured() -> None:
    verify = hs256(Claims(issuer="chat", audience="e2ee"))
    assert await verify(host_token("alice", START, iss="chat", aud=["e2ee", "other"]))
    for claims in ({}, {"iss": "chat"}, {"aud": "e2ee"}, {"iss": "chat", "aud": "other"}, {"iss": "x", "aud": "e2ee"}):
        with pytest.raises(TokenInvalidProblem):
            await verify(host_token("alice", START, **claims))


async def test_a_token_for_another_audience_is_refused_even_if_none_is_configured() -> None:
    with pytest.raises(TokenInvalidProblem):
        await hs256()(host_token("alice", START, aud="another service"))


@pytest.mark.parametrize("user_id", ["", "with space", "ünïcode", "x" * 129, "line\n"])
def test_a_user_id_that_the_protocol_cannot_carry_is_refused(user_id: str) -> None:
    with pytest.raises(TokenInvalidProblem):
        host_user(HostIdentity(user_id))


def settings(**changes: object) -> Settings:
    given = {"origin": "https://chat.example", "token_secret": TOKEN_SECRET}
    return Settings(**(given | changes))  # type: ignore[arg-type]  # pydantic judges the types


def test_settings_name_an_algorithm_and_its_key(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PUBLIC_PEM)
    for complete in (
        {"host_jwt_algorithm": "HS256", "host_jwt_secret": HOST_SECRET},
        {"host_jwt_algorithm": "EdDSA", "host_jwt_public_key": PUBLIC_PEM},
        {"host_jwt_algorithm": "EdDSA", "host_jwt_public_key_file": tmp_path / "key.pem"},
        {"host_jwt_algorithm": "RS256", "host_jwt_jwks_url": URL},
    ):
        host_token_verifier(settings(**complete), Clock())


@pytest.mark.parametrize(
    ("incomplete", "says"),
    [
        ({}, "host_jwt_algorithm"),
        ({"host_jwt_algorithm": "HS256"}, "host_jwt_secret"),
        ({"host_jwt_algorithm": "EdDSA"}, "host_jwt_public_key"),
        ({"host_jwt_algorithm": "EdDSA", "host_jwt_public_key_file": "/nowhere/key.pem"}, "cannot be read"),
        ({"host_jwt_algorithm": "EdDSA", "host_jwt_public_key": "nonsense"}, "not a key for EdDSA"),
        ({"host_jwt_algorithm": "RS256", "host_jwt_public_key": PUBLIC_PEM}, "not a key for RS256"),
        ({"host_jwt_algorithm": "EdDSA", "host_jwt_public_key": PUBLIC_PEM, "host_jwt_jwks_url": URL}, "there are 2"),
        (
            {"host_jwt_algorithm": "HS256", "host_jwt_secret": HOST_SECRET, "host_jwt_jwks_url": URL},
            "no use with HS256",
        ),
        (
            {"host_jwt_algorithm": "EdDSA", "host_jwt_secret": HOST_SECRET, "host_jwt_public_key": PUBLIC_PEM},
            "no use with EdDSA",
        ),
        ({"host_jwt_algorithm": "EdDSA", "host_jwt_public_key": PRIVATE_PEM}, "private key"),
    ],
)
def test_incomplete_settings_say_what_is_missing(incomplete: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        host_token_verifier(settings(**incomplete), Clock())
