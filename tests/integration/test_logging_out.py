"""The host application logs a user out: nothing of the login before counts any more, and nothing is lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.wire.identifiers import DeviceAddress
from keyserver.client import KeyServerClient, KeyServerRefusedError
from keyserver.host_token import HostIdentity
from keyserver.problems import TokenInvalidProblem
from tests.client_world import Actor, ClientWorld, client_world, eager_socketio, within
from tests.keyserver_world import World, world
from transport_adapters.server.ports import TokenRefusedError


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def test_tokens_of_all_devices_end_and_those_of_others_do_not(server: World) -> None:
    services = server.app.services
    bob, bobs = await server.join("bob")
    _, alices = await server.join("alice")
    ended, other = await bobs.device_token(), await alices.device_token()
    await services.log_out("bob")
    with pytest.raises(TokenRefusedError) as refused:
        await services.relay.tokens.verify(ended)
    assert refused.value.code == "token_invalid"
    assert (await services.relay.tokens.verify(other)).address.user_id == "alice"
    assert (await services.relay.tokens.verify(await _again(bobs))).address == bob.address


async def _again(client: KeyServerClient) -> str:
    client.forget_token()
    return await client.device_token()


async def test_a_login_that_was_begun_before_and_finished_after_ends_too(server: World) -> None:
    services = server.app.services
    _, bobs = await server.join("bob")
    verify, looks = services.context.verify_host_token, 0

    async def logged_out_after_the_first_look(token: str) -> HostIdentity:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise TokenInvalidProblem
        return await verify(token)

    await services.log_out("bob")
    object.__setattr__(services.context, "verify_host_token", logged_out_after_the_first_look)
    with pytest.raises(KeyServerRefusedError) as refused:
        await _again(bobs)
    assert (refused.value.code, looks) == ("token_invalid", 2)
    rows = await services.database.read(lambda on: on.exec_driver_sql("SELECT count(*) FROM e2ee_logins").scalar())
    assert rows == 0


@pytest.mark.parametrize("kind", ["memory", "socketio"])
async def test_a_client_is_cut_and_comes_back_only_with_a_new_token_of_the_host(
    kind: str, running: ClientWorld
) -> None:
    logged_in = True

    async def token() -> str:
        if not logged_in:
            raise PermissionError
        return await running.token("bob")()

    bob = await running.open("bob", token=token, transport=running.memory if kind == "memory" else eager_socketio)
    alice = await running.open("alice")
    await alice.client.send("bob", "hello")
    assert await bob.read() == ["hello"]

    logged_in = False
    await running.services.log_out("bob")
    assert not running.services.relay.is_live(bob.client.address)
    await alice.client.send("bob", "while you are logged out")
    await within(alice.client.flushed())
    assert await _waiting(running, bob.client.address) == 1

    logged_in = True
    assert await bob.read() == ["while you are logged out"]


async def _waiting(world: ClientWorld, address: DeviceAddress) -> int:
    query = "SELECT count(*) FROM e2ee_envelopes WHERE body IS NOT NULL"
    return await world.services.database.read(lambda on: on.exec_driver_sql(query).scalar_one())


async def test_whether_a_user_has_a_device(running: ClientWorld) -> None:
    assert not await running.services.has_device("alice")
    alice: Actor = await running.open("alice")
    assert await running.services.has_device(alice.user)
    with pytest.raises(ValueError, match="user id"):
        await running.services.has_device("")
