"""Many claimers, several server processes on one PostgreSQL, and processes killed at random among them.

Owns: the people, the servers, the load, the killing; what was asked and what was answered.
Does not know about: what must hold afterwards (the test asserts it).

People and prekeys are put into the database by the services themselves and not over HTTP: they are not what is tested.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, final

import httpx
from sqlalchemy import Connection, select

from e2ee.limits import HOUR_MS
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.identifiers import DeviceAddress, UserId
from e2ee.wire.login_assertion import LoginId
from e2ee.wire.prekey_bundle import KemPreKeyKind, PreKeyBundle
from keyserver.auth import DeviceTokens
from keyserver.database import Database, database_url
from keyserver.migrations.runner import upgrade
from keyserver.repository import logins
from keyserver.repository.logins import NewLogin
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.device_lists import DeviceListService
from keyserver.service.devices import DeviceService
from keyserver.service.policy import ContactPolicy
from keyserver.service.prekeys import PreKeyService, PublishedPreKey
from keyserver.tables import PreKeyKind, prekeys
from tests.keyserver_world import ORIGIN, TOKEN_SECRET, Clock, TestDevice, TestUser
from tests.server_process import ServerProcess

SERVERS = 4
HASTE = 0.05
_GENEROUS = RateLimit(1_000_000, 1)
_RAISED = {
    "upload_burst": "1000000",
    "upload_seconds": "1",
    **{f"claim_{of}_burst": "1000000" for of in ("pair", "claimer", "target")},
    **{f"claim_{of}_seconds": "1" for of in ("pair", "claimer", "target")},
}


class Size(NamedTuple):
    """How much of everything. Each device offers `keys` of both kinds of one-time prekey."""

    users: int
    devices: int
    keys: int
    claimers: int
    kills: int

    @property
    def one_time_keys(self) -> int:
        return self.users * self.devices * self.keys * 2


class Key(NamedTuple):
    """One one-time prekey of one device."""

    address: DeviceAddress
    kind: PreKeyKind
    prekey_id: int


@final
@dataclass
class Request:
    """One claim: what was asked, and what came of it."""

    claimer: int
    user: TestUser
    request_id: bytes
    killed: int = 0
    """Attempts without an answer: the server was killed, or the claimer hung up."""
    asked_at: float = 0.0
    """When the last attempt began."""
    bundles: list[PreKeyBundle] | None = None

    def one_time_keys(self) -> list[Key]:
        """The one-time prekeys that the answer held."""
        found = []
        for bundle in self.bundles or ():
            if bundle.one_time_prekey is not None:
                found.append(Key(bundle.address, PreKeyKind.ONE_TIME, bundle.one_time_prekey.prekey_id))
            if bundle.kem_prekey.kind is KemPreKeyKind.ONE_TIME:
                found.append(Key(bundle.address, PreKeyKind.ONE_TIME_KEM, bundle.kem_prekey.prekey_id))
        return found


@final
@dataclass
class Owner:
    """A user whose bundles are claimed."""

    user: TestUser
    devices: list[TestDevice]
    uploads: dict[DeviceAddress, list[PublishedPreKey]] = field(default_factory=dict)


@final
class Storm:
    """One run. `start`, `run`, then the answers are in `requests`; `close` at the end."""

    def __init__(self, url: str, directory: Path, size: Size, seed: int, servers: int = SERVERS) -> None:
        self.size = size
        self.random = Random(seed)
        self.clock = Clock()
        self.clock.now = time.time_ns() // 1_000_000
        self.database = Database(database_url(url))
        self.owners = [self._owner(f"owner{number}") for number in range(size.users)]
        self.claimers = [self._person(f"claimer{number}").device() for number in range(size.claimers)]
        self.requests: list[Request] = []
        self.retired: dict[DeviceAddress, float] = {}
        """Devices that left their lists during the run, and when the owner knew that."""
        self.kills = 0
        shared = {"database": url, "origin": ORIGIN, **_RAISED}
        if servers > 1:
            shared["bus"] = "postgresql"
        self._servers = []
        for number in range(servers):
            place = directory / f"server{number}"
            place.mkdir()
            self._servers.append(ServerProcess(place, **shared))
        self._http = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=2 * size.claimers))
        self._answered = asyncio.Event()
        self._answers = 0

    @property
    def urls(self) -> list[str]:
        """Where the servers are."""
        return [server.url for server in self._servers]

    @property
    def pids(self) -> list[int]:
        """The servers' processes."""
        return [server.pid for server in self._servers]

    async def start(self) -> None:
        """Put people and prekeys in, start the servers."""
        await self.database.start()
        await self.database.write(upgrade, patience=None)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self._servers))
        registry = DeviceService(self.database, self.clock, _GENEROUS, lambda *_: None, lambda *_: None)
        lists = DeviceListService(
            self.database, self.clock, ContactPolicy(), _GENEROUS, lambda _: None, lambda *_: None
        )
        uploads = PreKeyService(self.database, self.clock, _GENEROUS)
        for device in self.claimers:
            await registry.register(device.user.user_id, device.listed)
            await lists.publish(device.user.user_id, device.user.next_list(device))
        for owner in self.owners:
            for device in owner.devices:
                await registry.register(owner.user.user_id, device.listed)
            await lists.publish(owner.user.user_id, owner.user.next_list(*owner.devices))
            for device in owner.devices:
                owner.uploads[device.address] = one_time = self._one_time(device)
                await uploads.publish(device.address, [device.signed_prekey(), device.kem_prekey(), *one_time])
        self._tokens = [await self.token(device) for device in self.claimers]

    async def run(self, retire: int) -> None:
        """Claim until every key is gone and a little longer, while servers are killed and `retire` devices leave."""
        waiting = [owner for owner in self.owners for _ in range(self.size.keys + self.size.keys // 10)]
        self.random.shuffle(waiting)
        disturbing = asyncio.create_task(self._disturb(retire, len(waiting)))
        await asyncio.gather(*(self._claim_on(number, waiting) for number in range(self.size.claimers)))
        await disturbing

    async def ask(self, request: Request, *, hasty: bool = False, is_lost: bool = False) -> bool:
        """Ask once, anywhere; one `hasty` request in twenty hangs up before its answer, and one may be lost on its way.

        False: there was no answer, or none about the request.
        """
        body = {"user_id": request.user.user_id, "request_id": request.request_id.hex()}
        request.asked_at = time.monotonic()
        # Most kills, and most who hang up, hit work that was not committed; an answer that is lost, work that was.
        patience = self.random.uniform(0, 0.3) if hasty and self.random.random() < HASTE else None
        try:
            async with asyncio.timeout(patience):
                response = await self._send("POST", "/v1/claims", body, self._tokens[request.claimer])
        except httpx.ConnectError:
            await asyncio.sleep(0.01)  # nobody listens there now
            return False
        except (httpx.TransportError, TimeoutError):
            request.killed += 1
            return False
        if response.status_code == 503:
            return False
        assert response.status_code == 200, response.text
        if is_lost:
            request.killed += 1
            return False
        request.bundles = [PreKeyBundle.decode(from_base64url(each)) for each in response.json()["bundles"]]
        return True

    async def upload(self, upload: Sequence[PublishedPreKey], token: str) -> None:
        """Publish one-time X25519 prekeys anywhere."""
        body = {"one_time_prekeys": [to_base64url(each.encode()) for each in upload]}
        response = await self._send("PUT", "/v1/prekeys", body, token)
        assert response.is_success, response.text

    async def spent(self) -> dict[Key, bytes | None]:
        """What the database says: every one-time prekey that is spent, and the request that it is spent for."""

        def load(connection: Connection) -> dict[Key, bytes | None]:
            one_time = prekeys.c.kind.in_((PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM))
            rows = connection.execute(select(prekeys).where(one_time, prekeys.c.spent_at.is_not(None)))
            return {
                Key(addresses[row.device_id], PreKeyKind(row.kind), row.prekey_id): row.claim_request for row in rows
            }

        addresses = {each.device_id.raw: each for owner in self.owners for each in owner.uploads}
        return await self.database.read(load)

    async def close(self) -> None:
        for server in self._servers:
            server.kill()
        await self._http.aclose()
        await self.database.close()

    def _person(self, name: str) -> TestUser:
        return TestUser(UserId(name), self.random, self.clock)

    def _owner(self, name: str) -> Owner:
        user = self._person(name)
        return Owner(user, [user.device() for _ in range(self.size.devices)])

    def _one_time(self, device: TestDevice) -> list[PublishedPreKey]:
        kem = (device.kem_prekey(KemPreKeyKind.ONE_TIME) for _ in range(self.size.keys))
        return [*device.one_time_prekeys(self.size.keys), *kem]

    async def token(self, device: TestDevice) -> str:
        login_id, now = LoginId(self.random.randbytes(LoginId.LENGTH)), self.clock()
        login = NewLogin(login_id, device.address, now, now + HOUR_MS)
        await self.database.write(lambda connection: logins.add(connection, login, now))
        return (
            DeviceTokens(TOKEN_SECRET, ORIGIN, HOUR_MS, self.clock).issue(device.address, 0, login_id, login[3]).token
        )

    async def _claim_on(self, claimer: int, waiting: list[Owner]) -> None:
        while waiting:
            request = Request(claimer, waiting.pop().user, self.random.randbytes(16))
            self.requests.append(request)
            # However fast the servers are: one answer in ten is lost, and every other of these requests is given up.
            number = len(self.requests)
            is_lost = number % 10 == 0
            while not await self.ask(request, hasty=True, is_lost=is_lost):
                if not request.killed:
                    continue
                # Of the others one in three is never heard of again.
                if number % 20 == 0 if is_lost else self.random.random() < 1 / 3:
                    break
                is_lost = False
            self._answers += 1
            self._answered.set()

    async def _disturb(self, retire: int, total: int) -> None:
        """Kill servers, and let devices leave, spread over the run."""
        works = [self._kill] * self.size.kills + [self._retire] * retire + [self._repeat_upload] * retire
        self.random.shuffle(works)
        for number, work in enumerate(works, 1):
            while self._answers < total * number // (len(works) + 1):
                self._answered.clear()
                await self._answered.wait()
            await work()

    async def _kill(self) -> None:
        server = self.random.choice(self._servers)
        server.kill()
        self.kills += 1
        await asyncio.to_thread(server.start)

    async def _retire(self) -> None:
        """Let one of a user's devices leave, by a list that another one publishes."""
        owner = self.random.choice([each for each in self.owners if len(each.devices) > 1])
        gone = owner.devices.pop(self.random.randrange(len(owner.devices)))
        body = {"device_list": to_base64url(owner.user.next_list(*owner.devices).encode())}
        await self._insist("PUT", "/v1/device-lists", body, await self.token(owner.devices[0]))
        self.retired[gone.address] = time.monotonic()

    async def _repeat_upload(self) -> None:
        """Let a device upload again what it uploaded before, most of which is spent by now."""
        owner = self.random.choice(self.owners)
        device = self.random.choice(owner.devices)
        upload = [to_base64url(each.encode()) for each in owner.uploads[device.address]]
        one_time, kem = upload[: self.size.keys], upload[self.size.keys :]
        body = {"one_time_prekeys": one_time, "one_time_kem_prekeys": kem}
        await self._insist("PUT", "/v1/prekeys", body, await self.token(device))

    async def _insist(self, method: str, path: str, body: object, token: str) -> None:
        while True:
            with contextlib.suppress(httpx.TransportError):
                response = await self._send(method, path, body, token)
                if response.status_code != 503:
                    assert response.is_success, response.text
                    return
            await asyncio.sleep(0.01)

    async def _send(self, method: str, path: str, body: object, token: str) -> httpx.Response:
        server = self.random.choice(self._servers)
        headers = {"Authorization": f"Bearer {token}"}
        return await self._http.request(method, server.url + path, json=body, headers=headers)


def all_keys(requests: Sequence[Request]) -> list[tuple[Key, Request]]:
    """Every one-time prekey that was answered with, and to which request."""
    return [(key, request) for request in requests for key in request.one_time_keys()]
