"""What a user leaves at the key server to recover an account: stored by listed devices, read under the host's token."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyserver.client import KeyServerRefusedError
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import World, host_token, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_the_newest_blob_is_kept_and_a_user_sees_the_own_one_alone(server: World) -> None:
    _, alices = await server.join("alice")
    _, bobs = await server.join("bob")
    assert await alices.recovery_blob() is None
    for blob in (b"first", b"second", b"second"):
        await alices.store_recovery_blob(blob)
    assert (await alices.recovery_blob(), await bobs.recovery_blob()) == (b"second", None)
    await alices.store_recovery_blob(None)
    assert await alices.recovery_blob() is None


async def test_a_device_that_nobody_listed_cannot_replace_it(server: World) -> None:
    """Whoever stole a login can register a device, and no more."""
    alice, alices = await server.join("alice")
    await alices.store_recovery_blob(b"the owner's")
    thief = alice.user.device()
    thieves = server.client(thief)
    await thieves.register_device(thief.signing.public, thief.identity.public)
    for blob in (b"the thief's", None):
        with pytest.raises(KeyServerRefusedError, match="device_not_listed"):
            await thieves.store_recovery_blob(blob)
    assert await alices.recovery_blob() == b"the owner's"


@pytest.mark.parametrize("body", [{}, {"blob": ""}, {"blob": "=="}, {"blob": "A" * 4097}, {"blob": 1}, {"more": None}])
async def test_what_is_no_blob_is_refused(server: World, body: dict[str, Any]) -> None:
    _, alices = await server.join("alice")
    response = await server.post("/v1/recovery-blob", body, await alices.device_token(), "PUT")
    assert response.status_code == 422


async def test_each_way_has_its_token(server: World) -> None:
    _, alices = await server.join("alice")
    host = host_token("alice", server.clock())
    written = await server.post("/v1/recovery-blob", {"blob": "AAAA"}, host, "PUT")
    read = await server.http.get(
        "/v1/recovery-blob", headers={"Authorization": f"Bearer {await alices.device_token()}"}
    )
    assert (written.status_code, read.status_code) == (401, 401)


async def test_storing_is_limited(server: World) -> None:
    _, alices = await server.join("alice")
    for _ in range(10):
        await alices.store_recovery_blob(b"blob")
    with pytest.raises(KeyServerRefusedError, match="rate_limited"):
        await alices.store_recovery_blob(b"blob")
