"""People with devices, and a server for them, as the tests of the key server need them.

Owns: a clock that stands still, devices that sign, the application in this process, clients of it.
Does not know about: what a test asserts.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import jwt

from e2ee.limits import DAY_MS, DEVICE_LIST_LIFETIME_MS, HOUR_MS, PREKEY_LIFETIME_MS
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    IdentityKeyPair,
    PreKeyPair,
)
from e2ee.wire.codec import to_base64url
from e2ee.wire.device_list import NO_PREVIOUS_LIST, DeviceList, ListedDevice, SignedDeviceList, ordered
from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from e2ee.wire.login_assertion import LoginAssertion, LoginId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, SignedPreKey
from e2ee.wire.public_keys import KemPreKeyPublicKey
from keyserver.app import StandaloneApp, create_app
from keyserver.client import ClientOptions, KeyServerClient, PreKeyUpload
from keyserver.settings import Settings
from tests.databases import database_for

ORIGIN = "http://127.0.0.1:8000"
HOST_SECRET = "host secret of the tests, 32 bytes or more"
TOKEN_SECRET = "token secret of the tests, 32 bytes or more"
START = 1_800_000_000_000

IMPATIENT = ClientOptions(attempts=3, first_wait_seconds=0.0, longest_wait_seconds=0.0)


class Clock:
    """Unix milliseconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, milliseconds: int) -> None:
        self.now += milliseconds


def settings(database: Path, **changes: Any) -> Settings:
    """Settings of a small server; `changes` replace some."""
    values: dict[str, Any] = {
        "origin": ORIGIN,
        "database": database_for(database),
        "token_secret": TOKEN_SECRET,
        "host_jwt_algorithm": "HS256",
        "host_jwt_secret": HOST_SECRET,
        "migrate": True,
    }
    return Settings(**(values | changes))


def host_token(user_id: str, now: int, /, **claims: object) -> str:
    """A token of the host application."""
    known = {"sub": user_id, "iat": now // 1000, "exp": (now + HOUR_MS) // 1000}
    return jwt.encode(known | claims, HOST_SECRET, "HS256")


@dataclass
class TestDevice:
    """A device with its private keys; everything it makes follows from its seed."""

    __test__ = False

    user: "TestUser"
    random: Random
    clock: Clock
    counter: int = 0
    used_ids: set[int] = field(default_factory=set)
    next_id: int | None = None
    """The id of the next prekey, instead of a random one."""

    def __post_init__(self) -> None:
        self.signing = DeviceSigningKeyPair.generate(self.random.randbytes)
        self.identity = IdentityKeyPair.generate(self.random.randbytes)
        self.address = DeviceAddress(self.user.user_id, DeviceId(self.random.randbytes(16)))

    @property
    def listed(self) -> ListedDevice:
        return ListedDevice(self.address.device_id, self.signing.public, self.identity.public)

    async def next_counter(self) -> int:
        self.counter += 1
        return self.counter

    async def host_token(self) -> str:
        return host_token(self.user.user_id, self.clock())

    def prekey_id(self) -> PreKeyId:
        if self.next_id is not None:
            number, self.next_id = self.next_id, None
            return PreKeyId(number)
        while (number := self.random.getrandbits(32)) in self.used_ids:
            pass
        self.used_ids.add(number)
        return PreKeyId(number)

    def signed_prekey(self, expires_at: int | None = None) -> SignedPreKey:
        expires_at = expires_at or self.clock() + PREKEY_LIFETIME_MS
        unsigned = SignedPreKey(
            self.prekey_id(), expires_at, PreKeyPair.generate(self.random.randbytes).public, bytes(64)
        )
        signature = self.signing.sign(unsigned.signed_bytes(self.address))
        return SignedPreKey(unsigned.prekey_id, unsigned.expires_at, unsigned.public_key, signature)

    def one_time_prekeys(self, number: int) -> tuple[OneTimePreKey, ...]:
        return tuple(
            OneTimePreKey(self.prekey_id(), PreKeyPair.generate(self.random.randbytes).public) for _ in range(number)
        )

    def kem_prekey(
        self, kind: KemPreKeyKind = KemPreKeyKind.LAST_RESORT, *, expires_at: int | None = None
    ) -> KemPreKey:
        # Random bytes instead of an ML-KEM key: the server cannot tell, and generating one costs more than a test.
        key = KemPreKeyPublicKey(self.random.randbytes(KemPreKeyPublicKey.LENGTH))
        unsigned = KemPreKey(kind, self.prekey_id(), expires_at or self.clock() + PREKEY_LIFETIME_MS, key, bytes(64))
        signature = self.signing.sign(unsigned.signed_bytes(self.address))
        return KemPreKey(kind, unsigned.prekey_id, unsigned.expires_at, key, signature)

    def upload(self, one_time: int = 3, one_time_kem: int = 0) -> PreKeyUpload:
        kem = tuple(self.kem_prekey(KemPreKeyKind.ONE_TIME) for _ in range(one_time_kem))
        return PreKeyUpload(self.signed_prekey(), self.one_time_prekeys(one_time), self.kem_prekey(), kem)

    def assertion(self, login_id: str, counter: int, origin: str = ORIGIN) -> dict[str, Any]:
        """The body of POST /v1/tokens."""
        assertion = LoginAssertion(origin, self.address, LoginId.from_hex(login_id), counter)
        return {
            "user_id": self.address.user_id,
            "device_id": str(self.address.device_id),
            "login_id": login_id,
            "counter": counter,
            "signature": to_base64url(self.signing.sign(assertion.signed_bytes())),
        }


@dataclass
class TestUser:
    """A user: the account key, and the lists signed so far."""

    __test__ = False

    user_id: UserId
    random: Random
    clock: Clock
    lists: list[SignedDeviceList] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.account = AccountKeyPair.generate(self.random.randbytes)

    def device(self) -> TestDevice:
        return TestDevice(self, self.random, self.clock)

    def sign_list(
        self, devices: Iterable[TestDevice], *, account: AccountKeyPair | None = None, **changes: Any
    ) -> SignedDeviceList:
        """Sign the list that follows the last one kept with `keep_list`."""
        account = account or self.account
        last = self.lists[-1].unverified if self.lists else None
        fields: dict[str, Any] = {
            "user_id": self.user_id,
            "account_key": account.public,
            "seq": last.seq + 1 if last else 1,
            "previous_hash": last.hash() if last else NO_PREVIOUS_LIST,
            "created_at": self.clock(),
            "expires_at": self.clock() + DEVICE_LIST_LIFETIME_MS,
            "devices": ordered(device.listed for device in devices),
        }
        content = DeviceList(**(fields | changes))
        return SignedDeviceList(content, account.sign(content.signed_bytes()))

    def next_list(self, *devices: TestDevice) -> SignedDeviceList:
        """Sign the next list and keep it as the last one."""
        signed = self.sign_list(devices)
        self.lists.append(signed)
        return signed


class World:
    """A server in this process, and people who use it."""

    def __init__(self, app: StandaloneApp, clock: Clock) -> None:
        self.app = app
        self.clock = clock
        self.random = Random(20261123)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url=ORIGIN
        )
        self._clients: list[KeyServerClient] = []

    def user(self, name: str) -> TestUser:
        return TestUser(UserId(name), self.random, self.clock)

    def client(self, device: TestDevice, **changes: Any) -> KeyServerClient:
        """The device's client; it talks to the application in this process."""
        given: dict[str, Any] = {
            "host_token": device.host_token,
            "sign": device.signing.sign,
            "next_counter": device.next_counter,
            "http": self.http,
            "options": replace(IMPATIENT, clock=lambda: self.clock() / 1000),
        }
        return KeyServerClient(ORIGIN, device.address, **(given | changes))

    async def join(self, name: str, upload: PreKeyUpload | None = None) -> tuple[TestDevice, KeyServerClient]:
        """A new user with one device: registered, listed, and with prekeys if given."""
        device = self.user(name).device()
        client = self.client(device)
        await client.register_device(device.signing.public, device.identity.public)
        await client.publish_device_list(device.user.next_list(device))
        if upload is not None:
            await client.publish_prekeys(upload)
        return device, client

    async def post(self, path: str, body: object, token: str | None = None, method: str = "POST") -> httpx.Response:
        """A request as a program of its own would send it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.http.request(method, path, json=body, headers=headers)


@asynccontextmanager
async def running(app: StandaloneApp, clock: Clock) -> AsyncIterator[World]:
    """Run an application's lifespan around a world."""
    world = World(app, clock)
    async with app.services.lifespan(app.fastapi), world.http:
        yield world


@asynccontextmanager
async def world(tmp_path: Path, **changes: Any) -> AsyncIterator[World]:
    """A server with a fresh database."""
    clock = Clock()
    async with running(create_app(settings(tmp_path / "server.db", **changes), now=clock), clock) as made:
        yield made


def one_day_later(clock: Clock) -> None:
    clock.pass_ms(DAY_MS + 1)


def ids(prekeys: Sequence[OneTimePreKey]) -> list[int]:
    return [each.prekey_id for each in prekeys]
