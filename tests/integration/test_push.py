"""Waking a device, from a message to the push service and back: the whole server, real requests, real encryption."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from e2ee.stores.sqlite import SqliteStore
from keyserver.app import create_app
from keyserver.client import KeyServerRefusedError, PushServices
from keyserver.push_services import make_providers
from keyserver.repository import push
from keyserver.repository.push import PushRow
from tests.client_world import ClientWorld, client_world
from tests.contract.relay_world import eventually
from tests.keyserver_world import START, TestDevice, World, settings, world
from tests.push_services import Answer, PushServer, p256_key, push_server
from transport_adapters.server.push.ports import PushKind


class UserAgent:
    """A browser's side of one subscription."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.auth = b"sixteen bytes...."[:16]
        numbers = self._key.public_key().public_numbers()
        self.public_key = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    def decrypt(self, body: bytes) -> bytes:
        """RFC 8291 section 3.4 with RFC 8188 section 2, read from the receiving end."""
        salt, size, sealed = body[:16], int.from_bytes(body[16:20], "big"), body[86:]
        assert body[20] == 65
        assert len(sealed) <= size
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), body[21:86])
        info = b"WebPush: info\x00" + self.public_key + body[21:86]
        ikm = HKDF(SHA256(), 32, self.auth, info).derive(self._key.exchange(ec.ECDH(), sender))
        key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\x00").derive(ikm)
        nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\x00").derive(ikm)
        padded = AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\x00")
        assert padded.endswith(b"\x02")  # the last record
        return padded[:-1]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[PushServer]:
    async with push_server(tmp_path) as made:
        yield made


@pytest.fixture
async def chat(tmp_path: Path, service: PushServer) -> AsyncIterator[ClientWorld]:
    p256_key(tmp_path / "vapid.pem")
    async with client_world(
        tmp_path,
        vapid_key_file=tmp_path / "vapid.pem",
        vapid_subject="mailto:admin@chat.example",
        push_hosts=(service.host,),
        push_ca_file=service.certificate,
        push_delay_seconds=0,
    ) as made:
        yield made


async def test_a_message_to_a_closed_app_wakes_it_and_says_nothing_else(
    tmp_path: Path, chat: ClientWorld, service: PushServer
) -> None:
    path, secret = tmp_path / "bob.db", bytes(range(32))
    alice = await chat.open("alice")
    bob = await chat.open("bob", store=SqliteStore.create(path, key=secret))
    agent = UserAgent()
    kinds, key = await bob.client.push.services()
    await bob.client.push.subscribe("web", f"{service.url}/up/bobs", agent.public_key, agent.auth)
    await bob.client.aclose()

    await alice.client.send("bob", "are you there?")
    asked = await service.next()

    assert kinds == ("web",)
    assert agent.decrypt(asked.body) == b'{"e2ee":1}'
    vapid = dict(each.strip().split("=", 1) for each in asked.headers["authorization"].split(" ", 1)[1].split(","))
    assert base64.urlsafe_b64decode(vapid["k"] + "=") == key
    assert not {"alice", "bob"} & set(json.dumps({**asked.headers, "authorization": ""}).split('"'))
    again = await chat.open("bob", store=SqliteStore.open(path, key=secret))
    assert await again.read() == ["are you there?"]


async def test_a_dead_subscription_is_forgotten_but_not_the_one_that_came_after(
    chat: ClientWorld, service: PushServer
) -> None:
    alice, bob = await chat.talking()
    agent, address = UserAgent(), bob.client.address
    await bob.client.push.subscribe("web", f"{service.url}/up/old", agent.public_key, agent.auth)
    await bob.client.aclose()
    service.otherwise = Answer(410)
    await alice.client.send("bob", "first")
    await service.next()

    async def kept() -> str | None:
        found = await chat.services.database.write(lambda on: push.claim(on, address, 1 << 62, 0))
        return found.target if isinstance(found, PushRow) else None

    async def is_forgotten() -> bool:
        return await kept() is None

    await eventually(is_forgotten)
    new = PushRow("web", f"{service.url}/up/new", agent.public_key, agent.auth)
    await chat.services.database.write(lambda on: push.subscribe(on, address, new, START))
    await chat.services.database.write(lambda on: push.remove(on, address, f"{service.url}/up/old"))
    assert await kept() == f"{service.url}/up/new"


# --- subscriptions at the key server -------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    p256_key(tmp_path / "vapid.pem")
    changes = {"vapid_key_file": tmp_path / "vapid.pem", "vapid_subject": "https://chat.example/contact"}
    async with world(tmp_path, **changes) as made:
        yield made


ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/abc"


async def claimed(server: World, device: TestDevice, now: int, pause_ms: int = 30_000) -> PushRow | int | None:
    return await server.app.services.database.write(lambda on: push.claim(on, device.address, now, pause_ms))


async def test_of_several_nodes_that_would_wake_a_device_one_does(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.subscribe_push("web", ENDPOINT, b"\x04" * 65, bytes(16))
    row = await claimed(server, bob, START)
    assert row == PushRow("web", ENDPOINT, b"\x04" * 65, bytes(16))
    assert ENDPOINT not in repr(row)
    assert await claimed(server, bob, START + 10_000) == 20_000
    assert await claimed(server, bob, START - 10_000) == 30_000  # a clock that went back
    assert isinstance(await claimed(server, bob, START + 30_000), PushRow)


async def test_a_device_without_a_subscription_and_one_that_ended_it_are_not_woken(server: World) -> None:
    bob, bobs = await server.join("bob")
    assert await claimed(server, bob, START) is None
    await bobs.subscribe_push("web", ENDPOINT, b"\x04" * 65, bytes(16))
    await bobs.unsubscribe_push()
    assert await claimed(server, bob, START) is None


async def test_a_retired_device_is_not_woken_any_more(server: World) -> None:
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    await laptops.subscribe_push("web", ENDPOINT, b"\x04" * 65, bytes(16))
    await bobs.publish_device_list(bob.user.next_list(bob))
    assert await claimed(server, laptop, START) is None


@pytest.mark.parametrize(
    ("kind", "target", "public_key", "auth"),
    [
        ("web", "https://127.0.0.1/", b"\x04" * 65, bytes(16)),
        ("web", "https://updates.push.services.mozilla.com:8443/", b"\x04" * 65, bytes(16)),
        ("web", ENDPOINT, b"\x04" * 64, bytes(16)),
        ("web", ENDPOINT, b"\x04" * 65, b""),
        ("fcm", "a-token", b"", b""),  # not served here
        ("smoke", "signals", b"", b""),
    ],
)
async def test_what_the_server_cannot_serve_is_refused(
    server: World, kind: str, target: str, public_key: bytes, auth: bytes
) -> None:
    bob, bobs = await server.join("bob")
    with pytest.raises(KeyServerRefusedError):
        await bobs.subscribe_push(kind, target, public_key, auth)
    assert await claimed(server, bob, START) is None


async def test_a_server_without_push_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as plain:
        _, bobs = await plain.join("bob")
        assert await bobs.push_services() == PushServices((), b"")


async def test_without_a_device_token_nobody_subscribes(server: World) -> None:
    body = {"kind": "web", "target": ENDPOINT, "public_key": "", "auth": ""}
    for method in ("PUT", "DELETE"):
        assert (await server.post("/v1/push-subscription", body, None, method)).status_code == 401


def test_the_settings_name_the_services(tmp_path: Path) -> None:
    providers, vapid = make_providers(settings(tmp_path / "server.db", **everything(tmp_path)), lambda: START)
    assert set(providers) == set(PushKind)
    assert len(vapid) == 65


@pytest.mark.parametrize("setting", ["vapid_key_file", "push_ca_file", "fcm_account_file", "apns_key_file"])
@pytest.mark.parametrize("content", [None, b"", b"not a key", b"{}", b"[]", b'{"private_key": "secret-of-the-file"}'])
def test_a_file_that_holds_no_such_key_is_named_and_not_quoted(
    tmp_path: Path, setting: str, content: bytes | None
) -> None:
    wrong = tmp_path / "wrong"
    if content is not None:
        wrong.write_bytes(content)
    made = settings(tmp_path / "server.db", **(everything(tmp_path) | {setting: wrong}))
    with pytest.raises(ValueError, match=f"^E2EE_{setting.upper()}: the file ") as refused:
        create_app(made)
    assert "secret-of-the-file" not in str(refused.value)


def everything(directory: Path) -> dict[str, object]:
    """Settings that name every service."""
    p256_key(directory / "key.pem")
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = {"client_email": "a", "private_key": key.decode(), "token_uri": "https://c.example", "project_id": "d"}
    (directory / "account.json").write_text(json.dumps(account))
    return {
        "vapid_key_file": directory / "key.pem",
        "vapid_subject": "mailto:admin@chat.example",
        "fcm_account_file": directory / "account.json",
        "apns_key_file": directory / "key.pem",
        "apns_key_id": "ABC",
        "apns_team_id": "DEF",
        "apns_topic": "example.chat",
    }
