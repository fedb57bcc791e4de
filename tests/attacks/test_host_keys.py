"""Attack: becoming somebody through the host application's keys: algorithm confusion, `kid`, a key set that is away."""

import asyncio
import base64
import gzip
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyserver import key_set_fetch
from keyserver.host_keys import RETRY_MS, USABLE_MS, FetchError, KeySet, OneKey, read_key_set
from keyserver.host_token import HostIdentity, HostJwtVerifier
from keyserver.key_set_fetch import check_key_set_url, fetch_key_set
from keyserver.problems import HostKeysUnavailableProblem, TokenExpiredProblem, TokenInvalidProblem
from tests.key_set_server import HOUR, HostKey, KeySetServer, host_key, key_set, key_set_server
from tests.keyserver_world import START, Clock, world

ALGORITHMS = ("RS256", "ES256", "EdDSA")


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], secret: bytes | None) -> str:
    """A token as an attacker makes it, who does not use a library that refuses to."""
    claims = {"sub": "alice", "iat": START // 1000, "exp": START // 1000 + HOUR}
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(b'' if secret is None else hmac.digest(secret, signed.encode(), 'sha256'))}"


class Host:
    """A key set without a network: what `fetch` gives, or that it fails; and how often it was asked."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.body: bytes | None = key_set(*entries)
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.body is None:
            raise FetchError("away")
        return self.body

    def verifier(self, algorithm: str, clock: Clock) -> HostJwtVerifier:
        return HostJwtVerifier(algorithm, KeySet(algorithm, self.fetch, clock), clock)


async def refused(verify: HostJwtVerifier, token: str) -> None:
    with pytest.raises(TokenInvalidProblem):
        await verify(token)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_algorithm_verifies_with_a_pem_key_and_with_a_key_set(algorithm: str) -> None:
    key = host_key(algorithm)
    expected = HostIdentity("alice", START // 1000)
    assert await HostJwtVerifier(algorithm, key.public_pem, Clock())(key.token("alice")) == expected
    for kid in ("1", None):
        assert await Host(key.jwk(kid)).verifier(algorithm, Clock())(key.token("alice", kid)) == expected


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_algorithm_confusion_no_form_of_the_public_key_is_an_hmac_secret(algorithm: str) -> None:
    key = host_key(algorithm)
    der = base64.b64decode("".join(key.public_pem.splitlines()[1:-1]))
    jwk = json.dumps(key.jwk("1")).encode()
    for secret in (key.public_pem.encode(), key.public_pem.strip().encode(), der, jwk, b""):
        for header in ({"alg": "HS256", "kid": "1"}, {"alg": algorithm, "kid": "1"}):
            await refused(HostJwtVerifier(algorithm, key.public_pem, Clock()), forged(header, secret))
            await refused(Host(key.jwk("1")).verifier(algorithm, Clock()), forged(header, secret))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("named", ["none", "nOnE", "", None, "HS256", ["RS256"], {"alg": "RS256"}])
async def test_algorithm_confusion_the_token_does_not_choose_how_it_is_verified(algorithm: str, named: object) -> None:
    host = Host(host_key(algorithm).jwk("1"))
    for kid in ("1", "2", None):
        await refused(host.verifier(algorithm, Clock()), forged({"alg": named, "kid": kid}, None))
    assert host.asked == 0


@pytest.mark.parametrize("pinned", ALGORITHMS)
async def test_algorithm_confusion_another_asymmetric_algorithm_is_refused_though_its_key_is_in_the_set(
    pinned: str,
) -> None:
    entries = [host_key(each).jwk(each) for each in ALGORITHMS]
    for other in set(ALGORITHMS) - {pinned}:
        await refused(Host(*entries).verifier(pinned, Clock()), host_key(other).token("mallory", other))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_expired_and_future_tokens_are_refused_beyond_the_leeway(algorithm: str) -> None:
    key = host_key(algorithm)
    verify = HostJwtVerifier(algorithm, key.public_pem, Clock(), leeway_seconds=10)
    now = START // 1000
    for passes in ({"exp": now - 9}, {"nbf": now + 10}, {"iat": now + 10}):
        await verify(key.token("alice", **passes))
    for early in ({"nbf": now + 11}, {"iat": now + 11}):
        await refused(verify, key.token("alice", **early))
    with pytest.raises(TokenExpiredProblem):
        await verify(key.token("alice", exp=now - 10))


@pytest.mark.parametrize(
    "kid",
    [
        *("../../etc/passwd", "", "2", "1 ", "1\x00", "' OR 1=1 --", "https://evil.example/keys", "1" * 1000),
        *(1, True, ["1"], {"kid": "1"}, None),
    ],
)
async def test_kid_games_a_key_id_finds_a_key_of_the_set_or_nothing(kid: object) -> None:
    key, other = host_key("EdDSA"), host_key("EdDSA", 1)
    host = Host(key.jwk("1"), other.jwk("other"))
    signed = f"{encoded({'alg': 'EdDSA', 'kid': kid})}.{key.token('alice').split('.')[1]}"
    await refused(host.verifier("EdDSA", Clock()), f"{signed}.{'A' * 86}")
    # Correctly signed, by a key of the set: still nothing but the named key counts.
    if kid is None or isinstance(kid, str):
        await refused(host.verifier("EdDSA", Clock()), key.token("alice", kid))


async def test_kid_games_a_token_signed_with_one_key_under_the_name_of_another_is_refused() -> None:
    old, new = host_key("EdDSA"), host_key("EdDSA", 1)
    await refused(Host(old.jwk("old"), new.jwk("new")).verifier("EdDSA", Clock()), old.token("alice", "new"))


async def test_kid_games_a_key_that_the_token_brings_along_is_not_looked_at() -> None:
    ours, theirs = host_key("EdDSA"), host_key("EdDSA", 1)
    host = Host(ours.jwk("1"))
    async with key_set_server() as evil:
        evil.body = key_set(theirs.jwk("1"))
        for extra in ({"jwk": theirs.jwk("1")}, {"jku": evil.url}, {"x5u": evil.url}):
            await refused(host.verifier("EdDSA", Clock()), _with_header(theirs, {"kid": "1"} | extra))
        assert evil.asked == 0


def _with_header(key: HostKey, header: dict[str, Any]) -> str:
    import jwt

    claims = {"sub": "alice", "exp": START // 1000 + HOUR}
    return jwt.encode(claims, key.private_pem, key.algorithm, headers=header)


async def test_an_extension_that_is_marked_critical_and_not_known_refuses_the_token() -> None:
    key = host_key("EdDSA")
    verify = HostJwtVerifier("EdDSA", key.public_pem, Clock())
    await refused(verify, _with_header(key, {"crit": ["exp2"], "exp2": 1}))


def test_a_key_set_gives_only_sound_public_keys_of_the_pinned_algorithm() -> None:
    good = host_key("RS256")
    private = json.loads(_private_jwk(host_key("RS256", 1)))
    entries = [
        good.jwk("good"),
        {"kty": "oct", "k": encoded(b"s" * 32), "kid": "secret"},
        {"kty": "oct", "k": encoded(b"s" * 32), "kid": "secret2", "alg": "RS256"},
        private | {"kid": "private"},
        host_key("RS256 short").jwk("short"),
        good.jwk("encryption", use="enc"),
        good.jwk("other algorithm", alg="RS512"),
        good.jwk("for signing only", key_ops=["sign"]),
        good.jwk("broken", n="AA"),
        good.jwk("broken 2", n=5),
        good.jwk("even", e="AA"),
        good.jwk("twice"),
        host_key("RS256", 1).jwk("twice"),
        good.jwk(5),  # type: ignore[arg-type]  # that is the point
        {"kid": "empty"},
    ]
    assert set(read_key_set("RS256", key_set(*entries))) == {"good"}
    published_by_mistake = json.loads(_private_jwk(host_key("ES256"))) | {"kid": "private"}
    assert set(read_key_set("ES256", key_set(published_by_mistake))) == set()
    assert set(read_key_set("ES256", key_set(host_key("ES384").jwk("1", alg="ES256")))) == set()


def _private_jwk(key: HostKey) -> str:
    import jwt

    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return str(algorithm.to_jwk(algorithm.prepare_key(key.private_pem)))


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b"\xff", b"[" * 100_000, b"<html>"]
)
def test_what_is_no_key_set_is_refused_as_such(body: bytes) -> None:
    with pytest.raises(ValueError, match="key set"):
        read_key_set("RS256", body)
    with pytest.raises(ValueError, match="at most"):
        read_key_set("RS256", key_set(*[host_key("RS256").jwk(str(number)) for number in range(65)]))


@pytest.mark.parametrize(("algorithm", "kind"), [("RS256", "RS256 short"), ("ES256", "ES384"), ("EdDSA", "ES256")])
def test_a_configured_key_that_is_too_short_or_of_another_kind_is_refused(algorithm: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"not a key for {algorithm}"):
        OneKey(algorithm, host_key(kind).public_pem)
    with pytest.raises(ValueError, match="private key"):
        OneKey(algorithm, host_key(algorithm).private_pem)


async def test_rotation_a_new_key_is_found_at_once_and_a_withdrawn_one_counts_no_more() -> None:
    old, new, clock = host_key("EdDSA"), host_key("EdDSA", 1), Clock()
    host = Host(old.jwk("old"))
    verify = host.verifier("EdDSA", clock)
    await verify(old.token("alice", "old"))
    host.body = key_set(new.jwk("new"))
    clock.pass_ms(RETRY_MS)
    assert (await verify(new.token("alice", "new"))).user_id == "alice"
    await refused(verify, old.token("alice", "old"))


async def test_an_emptied_key_set_ends_every_key() -> None:
    key, clock = host_key("EdDSA"), Clock()
    host = Host(key.jwk("1"))
    verify = host.verifier("EdDSA", clock)
    await verify(key.token("alice", "1"))
    host.body = key_set()
    clock.pass_ms(RETRY_MS)
    await refused(verify, key.token("alice", "made up, so that the set is fetched"))
    await refused(verify, key.token("alice", "1"))


async def test_tokens_with_made_up_key_ids_cause_one_fetch_in_ten_seconds() -> None:
    key, clock = host_key("EdDSA"), Clock()
    host = Host(key.jwk("1"))
    verify = host.verifier("EdDSA", clock)
    await asyncio.gather(*(refused(verify, key.token("mallory", f"kid {number}")) for number in range(50)))
    assert host.asked == 1
    clock.pass_ms(RETRY_MS - 1)
    await refused(verify, key.token("mallory", "another"))
    assert host.asked == 1
    clock.pass_ms(1)
    await refused(verify, key.token("mallory", "another"))
    assert host.asked == 2
    assert (await verify(key.token("alice", "1"))).user_id == "alice"


async def test_a_key_set_that_is_away_is_missed_only_after_an_hour_and_never_replaced_by_trust() -> None:
    key, clock = host_key("EdDSA"), Clock()
    host = Host(key.jwk("1"))
    verify = host.verifier("EdDSA", clock)
    token = key.token("alice", "1", exp=START // 1000 + 10 * HOUR)
    await verify(token)
    for broken in (None, b"<html>Bad gateway</html>"):
        host.body = broken
        clock.pass_ms(USABLE_MS // 2 - 1)
        assert (await verify(token)).user_id == "alice"
        await asyncio.sleep(0)  # the fetch beside it
    clock.pass_ms(2)
    with pytest.raises(HostKeysUnavailableProblem):
        await verify(token)
    host.body = key_set(key.jwk("1"))
    clock.pass_ms(RETRY_MS)
    assert (await verify(token)).user_id == "alice"


async def test_a_clock_that_was_set_back_keeps_no_new_key_away() -> None:
    old, new, clock = host_key("EdDSA"), host_key("EdDSA", 1), Clock()
    host = Host(old.jwk("old"))
    verify = host.verifier("EdDSA", clock)
    await verify(old.token("alice", "old"))
    host.body = key_set(new.jwk("new"))
    clock.pass_ms(-1_000)
    assert (await verify(new.token("alice", "new", iat=START // 1000 - 5))).user_id == "alice"


# --- Over the network ----------------------------------------------------------------------------------------


@pytest.fixture
async def login() -> AsyncIterator[KeySetServer]:
    async with key_set_server() as made:
        yield made


async def test_a_server_fetches_the_set_and_answers_503_while_it_never_had_one(
    login: KeySetServer, tmp_path: Path
) -> None:
    key = host_key("ES256")
    settings = {"host_jwt_algorithm": "ES256", "host_jwt_secret": None, "host_jwt_jwks_url": login.url}
    login.status = "500 Internal Server Error"
    async with world(tmp_path, **settings) as server:
        away = await server.post("/v1/device-lists?user_id=alice", None, key.token("alice", "1"), "GET")
        assert (away.status_code, away.json()["code"]) == (503, "host_keys_unavailable")
        assert away.headers["retry-after"] == "10"
        login.status, login.body = "200 OK", key_set(key.jwk("1"))
        server.clock.pass_ms(RETRY_MS)
        there = await server.post("/v1/device-lists?user_id=alice", None, key.token("alice", "1"), "GET")
        assert there.status_code == 200


async def test_a_redirect_of_the_key_set_is_not_followed(login: KeySetServer) -> None:
    async with key_set_server() as evil:
        login.status, login.headers = "302 Found", f"Location: {evil.url}\r\n"
        with pytest.raises(FetchError, match="302"):
            await fetch_key_set(login.url)
        assert evil.asked == 0


async def test_a_key_set_without_end_or_without_an_answer_is_given_up(
    login: KeySetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.body = b" " * (key_set_fetch.MAX_BYTES + 1)
    with pytest.raises(FetchError, match="more than"):
        await fetch_key_set(login.url)
    monkeypatch.setattr(key_set_fetch, "TIMEOUT_SECONDS", 0.05)
    login.gate.clear()
    with pytest.raises(FetchError, match="Timeout"):
        await fetch_key_set(login.url)


async def test_a_key_set_that_comes_packed_is_not_unpacked(login: KeySetServer) -> None:
    login.body = gzip.compress(bytes(1 << 24))
    login.headers = "Content-Encoding: gzip\r\n"
    assert await fetch_key_set(login.url) == login.body


@pytest.mark.parametrize(
    "url",
    [
        *("http://login.example/keys", "http://127.0.0.1.evil.example/", "ftp://login.example/", "file:/etc/keys"),
        *("keys", "https://", "https://user:word@login.example/", "https://login.example/#x", "https://lögin.example/"),
        *("https://a b/", "https://login.example:99999/", "http://[::1/"),
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="key set"):
        check_key_set_url(url)


@pytest.mark.parametrize(
    "url", ["https://login.example/keys", "http://127.0.0.1:1/keys", "http://[::1]:1/", "http://localhost/"]
)
def test_urls_of_key_sets_that_are_taken(url: str) -> None:
    assert check_key_set_url(url) == url
