"""Yesterday's database is put back, `keyserver admin after-restore` run: what it forgot comes back, or is harmless."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.engine import make_url

from e2ee.ports import Table
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import DeviceAddress
from keyserver.after_restore import after_restore
from keyserver.app import system_clock
from keyserver.client import KeyServerRefusedError
from keyserver.database import database_url
from keyserver.tables import DeviceStatus, PreKeyKind, devices, prekeys
from tests.client_world import Actor, ClientWorld, Faults, eager_socketio, within
from tests.contract.relay_world import eventually
from tests.databases import database_for, each_database  # noqa: F401 - a fixture
from tests.keyserver_world import world as key_world
from tests.linking_world import link
from tests.server_process import ServerProcess
from tests.store_files import KEY
from transport_adapters import events


class Site:
    """A server process whose database can be backed up and put back, and people who use it."""

    def __init__(self, directory: Path, clients: AsyncExitStack) -> None:
        self.database = database_for(directory / "server.db")
        self.server = ServerProcess(directory, database=self.database, migrate="true")
        nothing = cast(Any, None)
        self.people = ClientWorld(self.server.url, directory, nothing, Faults(), nothing, system_clock, clients)
        self._backup = directory / "backup.db"
        self._engine: Engine = create_engine(database_url(self.database))

    async def open(self, user: str, **options: Any) -> Actor:
        return await self.people.open(user, transport=eager_socketio, **options)

    def ask(self, question: Callable[[Connection], Any]) -> Any:
        with self._engine.connect() as connection:
            return question(connection)

    def back_up(self) -> None:
        self._copy(forth=True)

    def put_back(self) -> None:
        self._copy(forth=False)

    def after_restore(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keyserver", "admin", "after-restore", "--database", self.database]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def close(self) -> None:
        self.server.kill()
        self._engine.dispose()

    def _copy(self, *, forth: bool) -> None:
        self._engine.dispose()
        if "://" not in self.database:
            here, there = (self.database, self._backup) if forth else (self._backup, self.database)
            if not forth:
                for beside in Path(self.database).parent.glob("server.db*"):
                    beside.unlink()
            with closing(sqlite3.connect(here)) as source, closing(sqlite3.connect(there)) as target:
                source.backup(target)
            return
        name = str(make_url(self.database).database)
        with psycopg.connect(self.database.replace(name, "postgres"), autocommit=True) as connection:
            old, new = (name, f"{name}_backup") if forth else (f"{name}_backup", name)
            if not forth:
                connection.execute(f"DROP DATABASE {new} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {new} TEMPLATE {old}")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as clients:
        site = Site(tmp_path, clients)
        try:
            await asyncio.to_thread(site.server.start)
            yield site
            await clients.aclose()
        finally:
            site.close()


async def exchange(one: Actor, other: Actor, text: str) -> None:
    for sender, recipient in ((one, other), (other, one)):
        await sender.client.send(recipient.user, f"{text} from {sender.user}")
        assert await recipient.read() == [f"{text} from {sender.user}"]


def claimed(connection: Connection) -> set[tuple[bytes, int]]:
    """The one-time prekeys that went to somebody."""
    rows = connection.execute(select(prekeys).where(prekeys.c.claim_request.is_not(None)))
    return {(row.device_id, row.prekey_id) for row in rows}


def offered(connection: Connection) -> set[tuple[bytes, int]]:
    """The one-time prekeys that somebody may get."""
    one_time = prekeys.c.kind.in_((PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM))
    rows = connection.execute(select(prekeys).where(one_time, prekeys.c.spent_at.is_(None)))
    return {(row.device_id, row.prekey_id) for row in rows}


def status(address: DeviceAddress) -> Callable[[Connection], DeviceStatus | None]:
    def look(connection: Connection) -> DeviceStatus | None:
        found = select(devices.c.status).where(devices.c.device_id == address.device_id.raw)
        return cast(DeviceStatus | None, connection.execute(found).scalar_one_or_none())

    return look


async def test_after_a_restore_conversations_go_on_revoked_devices_stay_out_and_no_claimed_key_is_served_again(
    site: Site,
    tmp_path: Path,
) -> None:
    place = tmp_path / "alice.db"
    alice = await site.open("alice", store=SqliteStore.create(place, key=KEY))
    bob, carol = [await site.open(name) for name in ("bob", "carol")]
    second = await link(site.people, alice, transport=eager_socketio)
    await exchange(alice, bob, "before")
    # The first is a copy, which waits for a session between the two devices.
    assert set(await second.read(2)) == {"before from alice", "before from bob"}
    await bob.client.flushed()

    await asyncio.to_thread(site.server.kill)
    site.back_up()
    await asyncio.to_thread(site.server.start)

    # What the backup does not know: a device that left, one that came, claims, and how far mailboxes have come.
    await alice.client.devices.retire(second.client.address.device_id)
    dave = await site.open("dave")
    await exchange(carol, alice, "first")
    await exchange(dave, bob, "first")
    await exchange(alice, bob, "after")
    gone = site.ask(claimed)
    await alice.client.flushed()
    await alice.client.aclose()

    await asyncio.to_thread(site.server.kill)
    site.put_back()
    done = await asyncio.to_thread(site.after_restore)
    assert done.returncode == 0, done.stderr
    assert "mailboxes: 4" in done.stdout
    known = site.ask(claimed)
    assert gone - known, "the backup does not know of some claims"
    assert site.ask(status(second.client.address)) == DeviceStatus.ACTIVE, "the backup knows no better"
    assert not site.ask(offered), "whatever was claimed since the backup, none of it can be had"
    await asyncio.to_thread(site.server.start)

    for actor in (bob, carol, dave):
        await actor.event(events.MailboxRestarted)
    # Alice is away: it is Bob who gives her newer list back, and with it her other device is out again.
    await bob.client.send("alice", "while you were away")
    await eventually(lambda: site.ask(status(second.client.address)) == DeviceStatus.RETIRED)
    alice = await site.open("alice", store=SqliteStore.open(place, key=KEY))
    assert await alice.read() == ["while you were away"]
    await alice.event(events.MailboxRestarted)
    await exchange(alice, bob, "restored")
    await exchange(carol, alice, "restored")
    await exchange(dave, bob, "restored")
    erin = await site.open("erin")
    for actor in (alice, bob, dave):
        # Each has published anew, the device too that the server had never heard of.
        await eventually(lambda device=actor.client.address.device_id.raw: device in dict(site.ask(offered)))
        await exchange(erin, actor, "hello")
    fresh = site.ask(claimed) - known
    assert fresh
    assert not fresh & gone, "a claimed key was served again"
    for actor in (alice, bob, carol, dave):
        assert actor.count(Table.UNREADABLE) == 0
        assert not actor.events(events.Unreadable)
    second.client._parts.key_server.forget_token()
    with pytest.raises(KeyServerRefusedError, match="device_revoked"):
        await within(second.client._parts.key_server.device_token())


async def test_a_database_that_is_served_is_left_alone(site: Site) -> None:
    refused = await asyncio.to_thread(site.after_restore)
    assert refused.returncode == 2
    assert refused.stderr == "keyserver: a process serves this database: stop it first\n"
    await exchange(await site.open("alice"), await site.open("bob"), "still")


async def test_what_was_offered_is_withdrawn_and_offered_by_no_later_upload_of_the_same_keys(tmp_path: Path) -> None:
    async with key_world(tmp_path) as world:
        device, client = await world.join("owner")
        upload = device.upload(5)
        await client.publish_prekeys(upload)
        done = await world.app.services.database.write(lambda on: after_restore(on, world.clock()))
        assert (done.mailboxes, done.one_time_prekeys, done.logins) == (1, 5, 1)
        counts = await client.publish_prekeys(upload)  # logs in anew by itself
        assert counts.one_time == 0, "a tombstone is left of each"
        assert counts.signed_prekey_id is not None
        again = await world.app.services.database.write(lambda on: after_restore(on, world.clock()))
        assert (again.mailboxes, again.one_time_prekeys) == (1, 0)
