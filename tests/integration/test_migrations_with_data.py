"""A database of the first release, with people in it, goes to this release and back, and nothing is lost.

The rows are written column by column into the tables as the first release made them, so no table of today is used.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, create_engine, inspect, text

from e2ee.primitives.kdf import sha256
from e2ee.wire.codec import from_base64url
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import EnvelopeId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, PreKeyBundle, SignedPreKey
from keyserver.app import create_app
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.migrations import runner
from keyserver.migrations.runner import VERSION_TABLE, downgrade, is_current, upgrade
from keyserver.service.claims import Question
from tests.databases import database_for, each_database  # noqa: F401 - a fixture
from tests.keyserver_world import Clock, TestDevice, TestUser, running, settings
from transport_adapters.frames import Hello, InstanceId
from transport_adapters.text import to_pair

FIRST = "0001"
LOGIN, REQUEST = b"l" * 16, b"r" * 16
EPOCH = 1_700_000_000_000


class People:
    """Alice has claimed a bundle of Bob's, and an envelope of hers waits for him."""

    def __init__(self) -> None:
        self.clock = Clock()
        random = Random(1)
        self.alice, self.bob = (TestUser(UserId(name), random, self.clock).device() for name in ("alice", "bob"))
        for device in (self.alice, self.bob):
            device.user.next_list(device)
        self.signed, self.last_resort = self.bob.signed_prekey(), self.bob.kem_prekey()
        self.one_time = self.bob.one_time_prekeys(3)
        addresses = self.alice.address, self.bob.address
        self.envelope = Envelope(EnvelopeId(b"e" * 16), *addresses, Lane.CHAT, 3600, b"ciphertext").encode()

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All rows, those first that others refer to."""
        now = self.clock()
        yield "rate_limits", {"name": "claim bob by alice", "full_at": now + 1000}
        for number, device in enumerate((self.alice, self.bob), 1):
            yield from self._of_device(device, number, now)
        offered: list[tuple[int, SignedPreKey | OneTimePreKey | KemPreKey]] = [(1, self.signed), (4, self.last_resort)]
        for kind, prekey in [*offered, *((2, each) for each in self.one_time)]:
            yield "prekeys", self._prekey(kind, prekey, now)
        claim = {**_address(self.alice), "request_id": REQUEST}
        question = Question(self.bob.address.user_id, None).digest()
        yield "claims", {**claim, "question": question, "created_at": now}
        yield (
            "claimed_bundles",
            {
                **claim,
                "target_user_id": "bob",
                "target_device_id": self.bob.address.device_id.raw,
                "signed_prekey_id": self.signed.prekey_id,
                "one_time_prekey_id": self.one_time[0].prekey_id,
                "kem_prekey_id": self.last_resort.prekey_id,
            },
        )
        size = len(self.envelope)
        yield (
            "inbox_senders",
            {"id": 7, "inbox_id": 2, **_address(self.alice), "ordinal": 1, "envelopes": 1, "bytes": size},
        )
        yield (
            "envelopes",
            {
                "inbox_id": 2,
                "seq": 1,
                "sender_id": 7,
                "envelope_id": b"e" * 16,
                "ordinal": 1,
                "lane": Lane.CHAT,
                "state": 0,
                "size": size,
                "created_at": now,
                "expires_at": now + 3_600_000,
                "body": self.envelope,
            },
        )
        yield "send_counters", {**_address(self.alice), "counter": 5}

    def _of_device(self, device: TestDevice, number: int, now: int) -> Iterator[tuple[str, dict[str, Any]]]:
        (signed,) = device.user.lists
        user_id, content = device.user.user_id, signed.unverified
        position = {"account_key": content.account_key.raw, "list_seq": 1, "list_hash": content.hash().raw}
        yield "users", {"user_id": user_id, **position, "created_at": now}
        listed = {"user_id": user_id, "seq": 1, "hash": content.hash().raw}
        yield "device_lists", {**listed, "body": signed.encode(), "accepted_at": now}
        keys = {"device_signing_key": device.signing.public.raw, "identity_key": device.identity.public.raw}
        yield (
            "devices",
            {**_address(device), **keys, "status": 1, "token_version": 3, "login_counter": 4, "created_at": now},
        )
        lifetime = {"host_issued_at": now // 1000, "created_at": now, "expires_at": now + 86_400_000}
        yield "logins", {"login_id": LOGIN[:-1] + bytes([number]), **_address(device), **lifetime}
        waiting = (1, 1, len(self.envelope)) if device is self.bob else (0, 0, 0)
        counts = dict(zip(("head_seq", "envelopes", "bytes"), waiting, strict=True))
        yield "inboxes", {"id": number, **_address(device), "epoch": EPOCH, **counts, "created_at": now}

    def _prekey(self, kind: int, prekey: SignedPreKey | OneTimePreKey | KemPreKey, now: int) -> dict[str, Any]:
        claimed = prekey is self.one_time[0]
        return {
            **_address(self.bob),
            "prekey_id": prekey.prekey_id,
            "kind": kind,
            "hash": sha256(prekey.encode()),
            "body": prekey.encode(),
            "expires_at": None if isinstance(prekey, OneTimePreKey) else prekey.expires_at,
            "published_at": now,
            "spent_at": now if claimed else None,
            "claim_request": REQUEST if claimed else None,
        }


def _address(device: TestDevice) -> dict[str, Any]:
    return {"user_id": device.address.user_id, "device_id": device.address.device_id.raw}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_for(tmp_path / "old.db")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    parsed = database_url(url)
    engine = sqlite_engine(parsed) if is_sqlite(parsed) else create_engine(parsed)
    yield engine
    engine.dispose()


def first_release(engine: Engine) -> People:
    """Make a database as the first release left it."""
    people = People()
    with engine.begin() as connection:
        upgrade(connection, FIRST)
        tables = MetaData()
        tables.reflect(connection)
        for name, row in people.rows():
            connection.execute(tables.tables[f"e2ee_{name}"].insert(), row)
    return people


def described(connection: Connection) -> Mapping[str, object]:
    """The schema, by table."""
    inspector = inspect(connection)
    return {
        name: (
            inspector.get_pk_constraint(name),
            sorted(map(str, inspector.get_foreign_keys(name))),
            sorted(str(index["name"]) for index in inspector.get_indexes(name)),
            sorted((column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)),
        )
        for name in inspector.get_table_names()
    }


def data(connection: Connection, columns: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """The rows of the named columns, by table."""
    return {
        table: sorted(str(tuple(row)) for row in connection.execute(text(f"SELECT {', '.join(names)} FROM {table}")))
        for table, names in columns.items()
    }


def columns_of(connection: Connection) -> Mapping[str, list[str]]:
    inspector = inspect(connection)
    ours = (name for name in inspector.get_table_names() if name != VERSION_TABLE)
    return {name: [column["name"] for column in inspector.get_columns(name)] for name in ours}


def test_every_table_of_the_first_release_has_a_row(engine: Engine) -> None:
    first_release(engine)
    with engine.begin() as connection:
        rows = data(connection, columns_of(connection))
    assert len(rows) == 12
    assert all(rows.values()), rows


def test_each_step_up_and_down_again_keeps_every_row_and_the_way_back_ends_at_the_same_tables(engine: Engine) -> None:
    first_release(engine)
    revisions = [each.revision for each in ScriptDirectory.from_config(runner._config()).walk_revisions()][::-1]
    assert revisions[0] == FIRST
    with engine.begin() as connection:
        columns, schema = columns_of(connection), described(connection)
        before = data(connection, columns)
    for revision in revisions[1:]:
        with engine.begin() as connection:
            upgrade(connection, revision)
            assert data(connection, columns) == before, revision
    with engine.begin() as connection:
        assert is_current(connection)
    for revision in revisions[-2::-1]:
        with engine.begin() as connection:
            downgrade(connection, revision)
            assert data(connection, columns) == before, revision
    with engine.begin() as connection:
        assert described(connection) == schema
    with engine.begin() as connection:
        upgrade(connection)
        assert is_current(connection)
        assert data(connection, columns) == before


async def test_a_server_of_today_goes_on_with_what_the_first_release_left(
    engine: Engine, url: str, tmp_path: Path
) -> None:
    people = first_release(engine)
    app = create_app(
        settings(tmp_path / "unused.db").model_copy(update={"database": url, "migrate": True}), now=people.clock
    )
    async with running(app, people.clock) as world:
        tokens = []
        for number, device in enumerate((people.alice, people.bob), 1):
            assertion = device.assertion((LOGIN[:-1] + bytes([number])).hex(), 5)
            tokens.append((await world.post("/v1/tokens", assertion)).json()["token"])
        alice, bob = tokens
        again = await world.post("/v1/claims", {"user_id": "bob", "request_id": REQUEST.hex()}, alice)
        fresh = await world.post("/v1/claims", {"user_id": "bob", "request_id": "11" * 16}, alice)
        assert one_time_id(again.json()) == people.one_time[0].prekey_id
        assert one_time_id(fresh.json()) in {each.prekey_id for each in people.one_time[1:]}
        hello = Hello(bob, InstanceId(b"i" * 16), 1, EPOCH, 0, 64, 1 << 18)
        answer = await world.post("/e2ee/poll", {"frames": [to_pair(hello)], "wait": 5}, bob)
        frames = list(answer.json()["frames"])
        while frames[-1][0] != "deliver":
            headers = {"e2ee-connection": answer.json()["connection"], "authorization": f"Bearer {bob}"}
            more = await world.http.post("/e2ee/poll", json={"frames": [], "wait": 5}, headers=headers)
            frames += more.json()["frames"]
        (_, welcome), (_, delivered) = frames[0], frames[-1]
        assert (welcome["epoch"], welcome["head_seq"]) == (EPOCH, 1)
        assert (delivered["epoch"], delivered["seq"]) == (EPOCH, 1)
        assert from_base64url(delivered["envelope"]) == people.envelope


def one_time_id(answer: Mapping[str, Any]) -> PreKeyId | None:
    (bundle,) = answer["bundles"]
    found = PreKeyBundle.decode(from_base64url(bundle)).one_time_prekey
    return None if found is None else found.prekey_id
