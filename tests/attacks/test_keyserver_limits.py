"""Attacks on the key server's limits: using up somebody else's, and storing without one."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from e2ee.wire.identifiers import UserId
from keyserver import housekeeping
from keyserver.app import create_app
from keyserver.client import PreKeyUpload, RateLimitedError
from tests.keyserver_world import Clock, running, settings, world


async def test_strangers_whom_the_host_refuses_cannot_use_up_the_claims_of_a_users_contacts(tmp_path: Path) -> None:
    async def may_contact(asker: UserId, _other: UserId) -> bool:
        return asker != "mallory"

    clock = Clock()
    configured = settings(tmp_path / "server.db", claim_target_burst=3, claim_pair_burst=100)
    async with running(create_app(configured, may_contact=may_contact, now=clock), clock) as server:
        bob, bobs = await server.join("bob")
        await bobs.publish_prekeys(bob.upload(5))
        _, mallorys = await server.join("mallory")
        for number in range(3):
            await mallorys.claim(UserId("bob"), number.to_bytes(16, "big"))
        with pytest.raises(RateLimitedError):
            await mallorys.claim(UserId("bob"), bytes(15) + b"\xff")
        _, alices = await server.join("alice")
        assert len((await alices.claim(UserId("bob"), bytes(16))).bundles) == 1


async def test_a_device_cannot_publish_prekeys_without_end(tmp_path: Path) -> None:
    async with world(tmp_path, upload_burst=3, upload_seconds=60) as server:
        mallory, client = await server.join("mallory")
        uploads = [PreKeyUpload(signed_prekey=mallory.signed_prekey()) for _ in range(4)]
        for upload in uploads[:3]:
            await client.publish_prekeys(upload)
        with pytest.raises(RateLimitedError) as refused:
            await client.publish_prekeys(uploads[3])
        assert refused.value.retry_after == 60
        await client.publish_prekeys(uploads[2])  # what is known already is free
        server.clock.pass_ms(60_000)
        await client.publish_prekeys(uploads[3])


async def test_retention_goes_on_after_a_failure_of_the_driver_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        rounds = 0

        async def write(self, _work: object, *, patience: float | None) -> None:
            assert patience is None
            self.rounds += 1
            again.set()
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(housekeeping, "_INTERVAL_SECONDS", 0)
    again, failing = asyncio.Event(), Failing()
    database: Any = failing
    task = asyncio.create_task(housekeeping.keep_house(database, Clock()))
    while failing.rounds < 3 and not task.done():
        again.clear()
        await asyncio.wait([task, asyncio.create_task(again.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    task.cancel()
