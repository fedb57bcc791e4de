"""What each push service is asked, over TLS, and what its answers mean."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import Clock, address
from tests.push_services import Answer, PushServer, json_answer, p256_key, push_server
from transport_adapters.server.push import http
from transport_adapters.server.push.apns import Apns
from transport_adapters.server.push.fcm import SCOPE, Fcm
from transport_adapters.server.push.ports import GONE, TAKEN, PushKind, Subscription, Verdict
from transport_adapters.server.push.web import WebPush
from transport_adapters.server.push.web_encryption import point

BOB = address("bob-the-confidential")
APNS_TOKEN = "0123456789abcdef" * 4
ACCOUNT = "push@project.iam.example"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PushServer]:
    async with push_server(tmp_path) as made:
        yield made


@pytest.fixture
def trust(server: PushServer) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.certificate)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def subscription(server: PushServer, owner: DeviceAddress = BOB) -> Subscription:
    key = point(ec.generate_private_key(ec.SECP256R1()))
    return Subscription(owner, PushKind.WEB, f"{server.url}/up/token", key, bytes(16))


# --- Web Push ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def web(tmp_path: Path, clock: Clock, trust: ssl.SSLContext) -> AsyncIterator[WebPush]:
    pem = p256_key(tmp_path / "vapid.pem")
    made = WebPush(pem, "mailto:admin@chat.example", clock, may_speak_to=lambda _url: True, verify=trust)
    yield made
    await made.aclose()


async def test_every_web_push_is_alike_but_for_its_keys_and_names_nobody(server: PushServer, web: WebPush) -> None:
    seen = []
    for owner in (BOB, address("carol")):
        assert await web.wake(subscription(server, owner), urgent=False) == TAKEN
        asked = await server.next()
        assert owner.user_id not in f"{asked.headers}{asked.body!r}"
        assert str(owner.device_id) not in f"{asked.headers}{asked.body!r}"
        # The token differs by its signature, which is not deterministic.
        seen.append((asked.path, {**asked.headers, "authorization": ""}, len(asked.body)))
    assert seen[0] == seen[1]
    assert (seen[0][1]["topic"], seen[0][1]["urgency"], seen[0][1]["ttl"]) == ("e2ee", "normal", "2419200")


async def test_a_call_is_urgent_and_not_worth_keeping(server: PushServer, web: WebPush) -> None:
    await web.wake(subscription(server), urgent=True)
    headers = (await server.next()).headers
    assert (headers["urgency"], headers["ttl"]) == ("high", "60")


async def test_the_vapid_token_is_for_this_service_only_and_short_lived(
    server: PushServer, web: WebPush, clock: Clock
) -> None:
    await web.wake(subscription(server), urgent=False)
    scheme, _, rest = (await server.next()).headers["authorization"].partition(" ")
    fields = dict(each.strip().split("=", 1) for each in rest.split(","))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), web.public_key)
    claims = jwt.decode(
        fields["t"], key, ["ES256"], audience=server.url, options={"verify_exp": False, "require": ["exp", "sub"]}
    )
    assert scheme == "vapid"
    assert claims["sub"] == "mailto:admin@chat.example"
    assert clock() // 1000 < claims["exp"] <= clock() // 1000 + 24 * 3600  # RFC 8292 section 2: at most a day


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(201), TAKEN),
        (Answer(404), GONE),
        (Answer(410), GONE),
        (Answer(429, headers=((b"retry-after", b"17"),)), Verdict(retry_after=17.0)),
        (Answer(503, headers=((b"retry-after", b"Thu, 01 Jan 1970 00:00:00 GMT"),)), Verdict(retry_after=0.0)),
        (Answer(500), Verdict(retry_after=0.0)),
        (Answer(429, headers=((b"retry-after", b"nonsense"),)), Verdict(retry_after=0.0)),
        (Answer(403), TAKEN),
        (Answer(302, headers=((b"location", b"https://127.0.0.1/"),)), TAKEN),
        (Answer(201, body=bytes(1 << 20)), TAKEN),
    ],
)
async def test_what_a_web_push_service_answers(
    server: PushServer, web: WebPush, answer: Answer, verdict: Verdict
) -> None:
    server.otherwise = answer
    assert await web.wake(subscription(server), urgent=False) == verdict
    await server.next()
    assert server.asked.empty()  # no redirect is followed


async def test_a_service_that_is_away_is_tried_again(web: WebPush) -> None:
    nowhere = Subscription(BOB, PushKind.WEB, "https://localhost:1/", subscription_key(), bytes(16))
    assert await web.wake(nowhere, urgent=False) == Verdict(retry_after=0.0)


async def test_a_service_with_another_certificate_is_not_spoken_to(
    tmp_path: Path, server: PushServer, clock: Clock
) -> None:
    pem = p256_key(tmp_path / "vapid.pem")
    web = WebPush(pem, "mailto:admin@chat.example", clock, may_speak_to=lambda _url: True)
    assert await web.wake(subscription(server), urgent=False) == Verdict(retry_after=0.0)
    assert server.asked.empty()
    await web.aclose()


async def test_subscriptions_that_cannot_be_served_are_given_up_unasked(
    tmp_path: Path, server: PushServer, web: WebPush, clock: Clock, trust: ssl.SSLContext
) -> None:
    bad_key = Subscription(BOB, PushKind.WEB, f"{server.url}/", b"\x04" + bytes(64), bytes(16))
    assert await web.wake(bad_key, urgent=False) == GONE
    pem = p256_key(tmp_path / "vapid.pem")
    strict = WebPush(pem, "mailto:admin@chat.example", clock, may_speak_to=lambda _url: False, verify=trust)
    assert await strict.wake(subscription(server), urgent=False) == GONE
    assert server.asked.empty()
    await strict.aclose()


def subscription_key() -> bytes:
    return point(ec.generate_private_key(ec.SECP256R1()))


# --- Firebase ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def google_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
async def fcm(
    server: PushServer, clock: Clock, trust: ssl.SSLContext, google_key: rsa.RSAPrivateKey
) -> AsyncIterator[Fcm]:
    account = {
        "client_email": ACCOUNT,
        "private_key": google_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "token_uri": f"{server.url}/token",
        "project_id": "a project",
    }
    server.fixed["/token"] = json_answer(200, access_token="granted", expires_in=3600)
    server.otherwise = json_answer(200, name="projects/p/messages/1")
    made = Fcm(account, clock, send_url=server.url, verify=trust)
    yield made
    await made.aclose()


ON_FCM = Subscription(BOB, PushKind.FCM, "registration-token")


async def test_firebase_is_asked_with_a_token_that_the_account_signed_for(
    server: PushServer, fcm: Fcm, clock: Clock, google_key: rsa.RSAPrivateKey
) -> None:
    assert await fcm.wake(ON_FCM, urgent=False) == TAKEN
    grant = parse_qs((await server.next()).body.decode())
    claims = jwt.decode(
        grant["assertion"][0],
        google_key.public_key(),
        ["RS256"],
        audience=f"{server.url}/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert grant["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert (claims["iss"], claims["scope"], claims["iat"]) == (ACCOUNT, SCOPE, clock() // 1000)
    assert claims["exp"] - claims["iat"] <= 3600
    sent = await server.next()
    assert sent.path == "/v1/projects/a project/messages:send"
    assert sent.headers["authorization"] == "Bearer granted"
    android = {"priority": "NORMAL", "collapse_key": "e2ee", "ttl": "2419200s"}
    assert json.loads(sent.body) == {
        "message": {"token": "registration-token", "data": {"e2ee": "1"}, "android": android}
    }


async def test_a_grant_is_used_until_it_nearly_expires(server: PushServer, fcm: Fcm, clock: Clock) -> None:
    paths = []
    for seconds in (0, 3000, 400):
        clock.advance(seconds)
        assert await fcm.wake(ON_FCM, urgent=True) == TAKEN
    while not server.asked.empty():
        paths.append((await server.next()).path)
    assert [path == "/token" for path in paths] == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (json_answer(404, error={"details": [{"errorCode": "UNREGISTERED"}]}), GONE),
        (json_answer(404, error={"status": "NOT_FOUND"}), TAKEN),
        (json_answer(400, error={"status": "INVALID_ARGUMENT"}), TAKEN),
        (Answer(401), Verdict(retry_after=0.0)),
        (Answer(503, headers=((b"retry-after", b"5"),)), Verdict(retry_after=5.0)),
    ],
)
async def test_what_firebase_answers(server: PushServer, fcm: Fcm, answer: Answer, verdict: Verdict) -> None:
    server.otherwise = answer
    assert await fcm.wake(ON_FCM, urgent=False) == verdict


@pytest.mark.parametrize("grant", [Answer(400, b"{}"), Answer(200, b"not json"), Answer(200, b"[]"), Answer(500)])
async def test_without_a_grant_nothing_is_sent(server: PushServer, fcm: Fcm, grant: Answer) -> None:
    server.fixed["/token"] = grant
    assert await fcm.wake(ON_FCM, urgent=False) == Verdict(retry_after=0.0)
    assert (await server.next()).path == "/token"
    assert server.asked.empty()


async def test_a_grant_that_is_refused_is_asked_for_anew(server: PushServer, fcm: Fcm) -> None:
    server.answers.append(Answer(401))
    await fcm.wake(ON_FCM, urgent=False)
    assert await fcm.wake(ON_FCM, urgent=False) == TAKEN
    assert [(await server.next()).path == "/token" for _ in range(4)] == [True, False, True, False]


# --- Apple ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def apns(tmp_path: Path, server: PushServer, clock: Clock, trust: ssl.SSLContext) -> AsyncIterator[Apns]:
    pem = p256_key(tmp_path / "apns.p8")
    server.otherwise = Answer(200)
    made = Apns(pem, ("KEYID", "TEAMID"), "example.chat", clock, url=server.url, verify=trust)
    yield made
    await made.aclose()


ON_APNS = Subscription(BOB, PushKind.APNS, APNS_TOKEN)


async def test_apple_is_asked_over_http_2_with_a_signed_token(
    tmp_path: Path, server: PushServer, apns: Apns, clock: Clock
) -> None:
    assert await apns.wake(ON_APNS, urgent=True) == TAKEN
    asked = await server.next()
    private = load_pem_private_key((tmp_path / "apns.p8").read_bytes(), None)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    token = asked.headers["authorization"].removeprefix("bearer ")
    assert jwt.decode(token, public, ["ES256"], options={"verify_iat": False}) == {
        "iss": "TEAMID",
        "iat": clock() // 1000,
    }
    assert jwt.get_unverified_header(token)["kid"] == "KEYID"
    assert (asked.http_version, asked.path) == ("2", f"/3/device/{APNS_TOKEN}")
    assert asked.headers["apns-topic"] == "example.chat"
    assert asked.headers["apns-collapse-id"] == "e2ee"
    assert asked.headers["apns-push-type"] == "alert"
    assert BOB.user_id not in f"{asked.headers}{asked.body!r}"


async def test_apples_token_is_made_anew_within_the_hour(server: PushServer, apns: Apns, clock: Clock) -> None:
    tokens = []
    for seconds in (0, 600, 2400):
        clock.advance(seconds)
        await apns.wake(ON_APNS, urgent=False)
        tokens.append((await server.next()).headers["authorization"])
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (json_answer(410, reason="Unregistered", timestamp=1), GONE),
        (json_answer(400, reason="DeviceTokenNotForTopic"), TAKEN),
        (json_answer(404, reason="BadPath"), TAKEN),
        (json_answer(403, reason="ExpiredProviderToken"), Verdict(retry_after=0.0)),
        (json_answer(403, reason="InvalidProviderToken"), TAKEN),
        (json_answer(429, reason="TooManyRequests"), Verdict(retry_after=0.0)),
        (Answer(503, b"not json"), Verdict(retry_after=0.0)),
    ],
)
async def test_what_apple_answers(server: PushServer, apns: Apns, answer: Answer, verdict: Verdict) -> None:
    server.otherwise = answer
    assert await apns.wake(ON_APNS, urgent=False) == verdict


# --- answers of a hostile service -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 99999999999999999999:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
        "-5",
        "NaN",
        "9" * 6000,
    ],
)
async def test_a_retry_after_beyond_reason_is_not_an_exception(server: PushServer, web: WebPush, said: str) -> None:
    server.otherwise = Answer(503, headers=((b"retry-after", said.encode()),))
    verdict = await web.wake(subscription(server), urgent=False)
    assert verdict.retry_after is not None
    assert 0 <= verdict.retry_after < 1_000_000


async def test_a_small_answer_that_unpacks_into_a_large_one_stays_packed(server: PushServer) -> None:
    packed = gzip.compress(bytes(1 << 24))
    server.otherwise = Answer(503, packed, ((b"content-encoding", b"gzip"),))
    client = http.client(verify=ssl.create_default_context(cafile=server.certificate))
    answer = await http.post(client, f"{server.url}/", {}, b"")
    assert answer.body == packed
    assert len(packed) < http.MAX_ANSWER
    assert (await server.next()).headers["accept-encoding"] == "identity"
    server.otherwise = Answer(503, bytes(2 * http.MAX_ANSWER))
    assert (await http.post(client, f"{server.url}/", {}, b"")).body == bytes(http.MAX_ANSWER)
    await client.aclose()


async def test_a_cookie_of_a_push_service_is_not_kept(server: PushServer, web: WebPush) -> None:
    server.otherwise = Answer(201, headers=((b"set-cookie", b"bob=is-woken; Path=/; Secure"),))
    for _ in range(2):
        assert await web.wake(subscription(server), urgent=False) == TAKEN
        assert "cookie" not in (await server.next()).headers


async def test_an_endpoint_whose_host_is_no_name_is_one_that_does_not_answer(server: PushServer, web: WebPush) -> None:
    nowhere = replace(subscription(server), target="https://xn--a.web.push.apple.com/token")
    assert await web.wake(nowhere, urgent=False) == Verdict(retry_after=0.0)


async def test_an_answer_that_comes_byte_by_byte_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 201 Created\r\n\r\n")
            while not writer.is_closing():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            writer.close()

    client = http.client()
    async with asyncio.timeout(20), await asyncio.start_server(drip, "127.0.0.1", 0) as dripping:
        port = dripping.sockets[0].getsockname()[1]
        assert (await http.post(client, f"http://127.0.0.1:{port}/", {}, b"")).status == 0
        await client.aclose()
