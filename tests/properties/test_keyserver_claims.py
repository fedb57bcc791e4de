"""Property: however publishing, claiming, repeating and the passing of time interleave, no key is handed out twice."""

import asyncio
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection

from e2ee.limits import DAY_MS, HOUR_MS
from e2ee.wire.identifiers import PreKeyId, UserId
from e2ee.wire.prekey_bundle import KemPreKeyKind, OneTimePreKey, PreKeyBundle
from keyserver.database import Database, database_url
from keyserver.housekeeping import clean
from keyserver.problems import PreKeyConflictProblem, TooManyPreKeysProblem
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.claims import ClaimLimits, ClaimService, Question
from keyserver.service.device_lists import DeviceListService
from keyserver.service.devices import DeviceService
from keyserver.service.policy import ContactPolicy
from keyserver.service.prekeys import PreKeyService, PublishedPreKey
from keyserver.tables import metadata
from tests.databases import postgresql
from tests.keyserver_world import Clock, TestDevice, TestUser

GENEROUS = RateLimit(1_000_000, 1)


class Request(NamedTuple):
    claimer: int
    request_id: bytes


class Claims(RuleBasedStateMachine):
    """Bob publishes; Alice and Carol claim. `handed` remembers which request got which key."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.random = Random(1)
        self.numbers = count(1)
        self.uploads: list[list[PublishedPreKey]] = []
        self.published: set[int] = set()
        self.handed: dict[int, Request] = {}
        self.answers: dict[Request, tuple[int, list[PreKeyBundle]]] = {}
        self.runner.run(self.open())

    async def open(self) -> None:
        self.database = Database(database_url(self.url()))
        await self.database.start()
        await self.database.write(metadata.create_all)
        self.bob, *self.claimers = [self.device(name) for name in ("bob", "alice", "carol")]
        self.prekeys = PreKeyService(self.database, self.clock, GENEROUS)
        limits = ClaimLimits(GENEROUS, GENEROUS, GENEROUS)
        self.claims = ClaimService(self.database, self.clock, ContactPolicy(), limits)
        registry = DeviceService(self.database, self.clock, GENEROUS, lambda *_: None, lambda *_: None)
        await registry.register(self.bob.user.user_id, self.bob.listed)
        lists = DeviceListService(self.database, self.clock, ContactPolicy(), GENEROUS, lambda _: None, lambda *_: None)
        await lists.publish(self.bob.user.user_id, self.bob.user.next_list(self.bob))
        await self.prekeys.publish(self.bob.address, [self.bob.signed_prekey(), self.bob.kem_prekey()])

    def url(self) -> str:
        return str(Path(self.directory.name) / "claims.db")

    def device(self, name: str) -> TestDevice:
        return TestUser(UserId(name), self.random, self.clock).device()

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        self.directory.cleanup()

    @rule(one_time=st.integers(0, 4), kem=st.integers(0, 2))
    def publish(self, one_time: int, kem: int) -> None:
        upload: list[PublishedPreKey] = [*self.bob.one_time_prekeys(one_time)]
        upload += [self.bob.kem_prekey(KemPreKeyKind.ONE_TIME) for _ in range(kem)]
        self.uploads.append(upload)
        self.upload(upload)
        self.published |= {each.prekey_id for each in upload}

    @precondition(lambda self: self.uploads)
    @rule(which=st.integers(0, 1000))
    def publish_again(self, which: int) -> None:
        self.upload(self.uploads[which % len(self.uploads)])

    @precondition(lambda self: self.published)
    @rule(which=st.integers(0, 1000))
    def publish_other_bytes_under_a_used_id(self, which: int) -> None:
        used = PreKeyId(sorted(self.published)[which % len(self.published)])
        clash = OneTimePreKey(used, self.bob.one_time_prekeys(1)[0].public_key)
        try:
            self.upload([clash])
        except PreKeyConflictProblem:
            return
        raise AssertionError("other bytes under a used id were accepted")

    @rule(claimers=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def claim_at_once(self, claimers: list[int]) -> None:
        requests = [Request(claimer, next(self.numbers).to_bytes(16, "big")) for claimer in claimers]
        self.runner.run(self.claim(requests))

    @precondition(lambda self: self.answers)
    @rule(which=st.lists(st.integers(0, 1000), min_size=1, max_size=4))
    def claim_again(self, which: list[int]) -> None:
        known = sorted(self.answers)
        self.runner.run(self.claim([known[number % len(known)] for number in which]))

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.clock.pass_ms(hours * HOUR_MS)

    @rule()
    def keep_house(self) -> None:
        self.runner.run(self.database.write(self.cleaned))
        # A request older than a day is forgotten: the same id would be a new request.
        old = self.clock() - DAY_MS
        self.answers = {request: answer for request, answer in self.answers.items() if answer[0] >= old}

    @invariant()
    def what_is_offered_was_never_handed_out(self) -> None:
        counts = self.runner.run(self.prekeys.counts(self.bob.address))
        assert counts.one_time + counts.one_time_kem == len(self.published - self.handed.keys())

    def upload(self, upload: list[PublishedPreKey]) -> None:
        try:
            self.runner.run(self.prekeys.publish(self.bob.address, upload))
        except TooManyPreKeysProblem:
            self.published -= {each.prekey_id for each in upload}

    async def claim(self, requests: list[Request]) -> None:
        question = Question(self.bob.user.user_id, None)
        asked = [
            self.claims.claim(self.claimers[request.claimer].address, question, request.request_id)
            for request in requests
        ]
        for request, answer in zip(requests, await asyncio.gather(*asked), strict=True):
            bundles = [PreKeyBundle.decode(each.encode()) for each in answer.bundles]
            assert len(bundles) == 1
            asked_at, before = self.answers.setdefault(request, (self.clock(), bundles))
            assert bundles == before, f"the answer to a request of {asked_at} changed"
            for prekey_id in self.one_time_ids(bundles):
                assert self.handed.setdefault(prekey_id, request) == request, "handed out twice"

    def cleaned(self, connection: Connection) -> int:
        return clean(connection, self.clock())

    @staticmethod
    def one_time_ids(bundles: list[PreKeyBundle]) -> list[int]:
        found = [bundle.one_time_prekey.prekey_id for bundle in bundles if bundle.one_time_prekey is not None]
        kem = [bundle.kem_prekey for bundle in bundles]
        return [*found, *(each.prekey_id for each in kem if each.kind is KemPreKeyKind.ONE_TIME)]


class ClaimsOnPostgreSql(Claims):
    def url(self) -> str:
        return postgresql().new_database()


Claims.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestClaims = Claims.TestCase
ClaimsOnPostgreSql.TestCase.settings = settings(max_examples=15, stateful_step_count=30)
TestClaimsOnPostgreSql = ClaimsOnPostgreSql.TestCase
