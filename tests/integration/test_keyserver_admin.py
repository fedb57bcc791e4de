"""`keyserver admin`: what it shows and does beside a running server, as text, as JSON, and by its exit code."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keyserver.__main__ import main
from keyserver.client import KeyServerRefusedError
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import World, host_token, world
from transport_adapters.server.ports import TokenRefusedError


class Result(NamedTuple):
    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Admin = Callable[..., Result]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
def admin(server: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Admin:
    """Run a command on the server's database, at the server's time."""
    url = server.app.services.database._url
    monkeypatch.setenv("E2EE_DATABASE", url.render_as_string(hide_password=False).replace("+psycopg", ""))
    monkeypatch.setattr("keyserver.admin.system_clock", server.clock)

    def run(*arguments: str) -> Result:
        try:
            code = main(("admin", *arguments))
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        return Result(code, *capsys.readouterr())

    return run


async def test_stats_users_and_devices_show_what_the_server_knows(server: World, admin: Admin) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(one_time=2, one_time_kem=1))
    await server.join("alice")
    stats = admin("stats", "--json")
    assert stats.code == 0
    assert (stats.json["users"], stats.json["active_devices"], stats.json["inboxes"]) == (2, 2, 2)
    users = admin("users", "--json").json["users"]
    assert [each["user_id"] for each in users] == ["alice", "bob"]
    assert [each["user_id"] for each in admin("users", "--json", "--after", "alice").json["users"]] == ["bob"]
    assert len(admin("users", "--json", "--limit", "1").json["users"]) == 1
    (device,) = admin("devices", "bob", "--json").json["devices"]
    assert device == {
        "device_id": str(bob.address.device_id),
        "status": "active",
        "created_at": server.clock(),
        "retired_at": None,
        "logins": 1,
        "one_time_prekeys": 2,
        "one_time_kem_prekeys": 1,
    }


async def test_without_json_it_is_a_table_for_people(server: World, admin: Admin) -> None:
    bob, _ = await server.join("bob")
    lines = admin("devices", "bob").output.splitlines()
    assert lines[0] == "user_id: bob"
    assert lines[1].split()[:2] == ["device_id", "status"]
    assert lines[2].split()[:4] == [str(bob.address.device_id), "active", "2027-01-15T08:00:00Z", "-"]
    assert "users: 1" in admin("stats").output.splitlines()


async def test_a_revoked_user_is_out_until_a_newer_token_of_the_host(server: World, admin: Admin) -> None:
    _, bobs = await server.join("bob")
    stolen, ended = host_token("bob", server.clock()), await bobs.device_token()
    revoked = admin("revoke", "bob", "--json")
    assert (revoked.code, revoked.json) == (
        0,
        {"user_id": "bob", "known": True, "revoked_at": server.clock(), "cut_within_seconds": 10},
    )
    assert admin("revoke", "bbo", "--json").json["known"] is False
    with pytest.raises(TokenRefusedError):
        await server.app.services.relay.tokens.verify(ended)
    refused = await server.post("/v1/device-lists?user_id=bob", None, stolen, "GET")
    assert refused.json()["code"] == "token_revoked"
    server.clock.pass_ms(1_000)
    bobs.forget_token()
    await bobs.device_token()


async def test_a_user_who_was_never_here_can_be_revoked_beforehand(server: World, admin: Admin) -> None:
    stolen = host_token("mallory", server.clock())
    assert admin("revoke", "mallory").code == 0
    refused = await server.post("/v1/device-lists?user_id=bob", None, stolen, "GET")
    assert refused.json()["code"] == "token_revoked"


async def test_a_revoked_device_is_retired_and_a_second_time_there_is_none(server: World, admin: Admin) -> None:
    bob, bobs = await server.join("bob")
    device_id = str(bob.address.device_id)
    assert admin("revoke", "bob", "--device", device_id).code == 0
    bobs.forget_token()
    with pytest.raises(KeyServerRefusedError) as refused:
        await bobs.device_token()
    assert refused.value.code == "device_revoked"
    (device,) = admin("devices", "bob", "--json").json["devices"]
    assert (device["status"], device["retired_at"], device["logins"]) == ("retired", server.clock(), 0)
    again = admin("revoke", "bob", "--device", device_id, "--json")
    assert again.code == 1
    assert again.json == {"error": "there is no such device, or it has left before"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("devices", "nobody"), 1, "no such user"),
        (("revoke", "bob", "--device", "00" * 16), 1, "no such device"),
        (("revoke", "bob", "--device", "xyz"), 2, "32 lower-case hex digits"),
        (("devices", "b b"), 2, "printable ASCII"),
        (("users", "--limit", "0"), 2, "1 to 1000"),
        (("users", "--limit", "9" * 30), 2, "1 to 1000"),
        (("revoke",), 2, "user"),
        ((), 2, "COMMAND"),
        (("stats", "--database", "/nowhere/keys.db"), 2, "no such database file"),
        (("stats", "--database", "mysql://host/x"), 2, "SQLite or PostgreSQL"),
    ],
)
def test_exit_codes_tell_not_found_from_wrong_use(
    admin: Admin, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = admin(*arguments)
    assert result.code == code
    assert says in result.errors
    assert "Traceback" not in result.errors


def test_a_missing_database_file_is_not_made(admin: Admin, tmp_path: Path) -> None:
    missing = tmp_path / "other.db"
    assert admin("stats", "--database", str(missing)).code == 2
    assert not missing.exists()


def test_a_database_of_another_release_is_left_alone(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    result = admin("revoke", "bob", "--database", str(tmp_path / "empty.db"), "--json")
    assert result.code == 2
    assert "keyserver migrate" in result.json["error"]
