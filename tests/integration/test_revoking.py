"""The operator revokes: a user's logins, after which old tokens of the host open nothing; or one device, for good."""

from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from e2ee.wire.codec import to_base64url
from keyserver.client import KeyServerClient, KeyServerRefusedError
from keyserver.problems import TokenRevokedProblem
from tests.client_world import ClientWorld, client_world, eager_socketio, within
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import HOST_SECRET, TestDevice, World, host_token, world
from transport_adapters.server.ports import TokenRefusedError


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def again(client: KeyServerClient) -> str:
    client.forget_token()
    return await client.device_token()


async def codes(server: World, device: TestDevice, token: str) -> set[str]:
    """What each endpoint that takes a host token says to one."""
    name = {"device_id": str(device.address.device_id)}
    keys = {
        "device_signing_key": to_base64url(device.signing.public.raw),
        "identity_key": to_base64url(device.identity.public.raw),
    }
    answers = [
        await server.post("/v1/devices", name | keys, token),
        await server.post("/v1/logins", name, token),
        await server.post("/v1/device-lists?user_id=bob", None, token, "GET"),
    ]
    return {str(each.json().get("code", each.status_code)) for each in answers}


async def test_a_token_of_the_host_that_was_issued_before_a_revocation_opens_nothing(server: World) -> None:
    bob, bobs = await server.join("bob")
    _, alices = await server.join("alice")
    stolen, ended = host_token("bob", server.clock()), await bobs.device_token()
    await server.app.services.revoke("bob")
    assert await codes(server, bob, stolen) == {"token_revoked"}
    with pytest.raises(TokenRefusedError):
        await server.app.services.relay.tokens.verify(ended)
    await again(alices)


async def test_a_token_of_the_same_second_is_refused_and_one_of_the_next_is_taken(server: World) -> None:
    bob, bobs = await server.join("bob")
    server.clock.pass_ms(400)
    await server.app.services.revoke("bob")
    server.clock.pass_ms(300)
    assert await codes(server, bob, host_token("bob", server.clock())) == {"token_revoked"}
    server.clock.pass_ms(300)
    assert await codes(server, bob, host_token("bob", server.clock())) == {"200"}
    assert (await server.app.services.relay.tokens.verify(await again(bobs))).address == bob.address


async def test_a_token_that_does_not_say_when_it_was_issued_is_refused_after_a_revocation(server: World) -> None:
    bob, _ = await server.join("bob")
    timeless = jwt.encode({"sub": "bob", "exp": server.clock() // 1000 + 60}, HOST_SECRET, "HS256")
    assert await codes(server, bob, timeless) == {"200"}
    await server.app.services.revoke("bob")
    assert await codes(server, bob, timeless) == {"token_revoked"}


async def test_a_login_that_was_begun_before_a_revocation_is_not_finished_after_it(server: World) -> None:
    bob, _ = await server.join("bob")
    seen = server.clock() // 1000  # the host token was looked at, and its user not revoked yet
    await server.app.services.revoke("bob")
    with pytest.raises(TokenRevokedProblem):
        await server.app.services.context.logins.open(bob.address, seen)


async def test_a_user_may_be_revoked_before_the_first_device(server: World) -> None:
    bob = server.user("bob").device()
    stolen = host_token("bob", server.clock())
    await server.app.services.revoke("bob")
    assert await codes(server, bob, stolen) == {"token_revoked"}


async def test_an_earlier_revocation_does_not_lift_a_later_one(server: World) -> None:
    bob, _ = await server.join("bob")
    token = host_token("bob", server.clock() + 5_000)
    server.clock.pass_ms(10_000)
    await server.app.services.revoke("bob")
    server.clock.pass_ms(-9_000)
    await server.app.services.revoke("bob")
    server.clock.pass_ms(9_000)
    assert await codes(server, bob, token) == {"token_revoked"}


async def test_a_revoked_device_has_no_bundle_no_token_and_no_way_back_under_its_id(server: World) -> None:
    bob, bobs = await server.join("bob")
    await bobs.publish_prekeys(bob.upload(3))
    _, alices = await server.join("alice")
    assert len((await alices.claim(bob.user.user_id, bytes(16))).bundles) == 1
    device_id = str(bob.address.device_id)
    assert await server.app.services.revoke_device("bob", device_id)
    assert not await server.app.services.revoke_device("bob", device_id)
    assert not await server.app.services.revoke_device("bob", "00" * 16)
    assert (await alices.claim(bob.user.user_id, b"another request!")).bundles == ()
    with pytest.raises(KeyServerRefusedError) as refused:
        await again(bobs)
    assert refused.value.code == "device_revoked"
    with pytest.raises(KeyServerRefusedError) as refused:
        await bobs.register_device(bob.signing.public, bob.identity.public)
    assert refused.value.code == "device_retired"


async def test_a_user_returns_after_a_revoked_device_with_a_new_one_in_a_newly_signed_list(server: World) -> None:
    lost, _ = await server.join("bob")
    await server.app.services.revoke_device("bob", str(lost.address.device_id))
    bought = lost.user.device()
    client = server.client(bought)
    await client.register_device(bought.signing.public, bought.identity.public)
    with pytest.raises(KeyServerRefusedError) as refused:
        await client.publish_device_list(lost.user.sign_list([lost, bought]))
    assert refused.value.code == "device_retired"
    await client.publish_device_list(lost.user.next_list(bought))
    await client.publish_prekeys(bought.upload(1))


@pytest.mark.parametrize("wrong", ["", "zz", "00" * 15, "AA" * 16])
async def test_a_senseless_name_is_the_callers_mistake(server: World, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        await server.app.services.revoke_device("bob", wrong)
    with pytest.raises(ValueError, match=r".+"):
        await server.app.services.revoke("b b")


@pytest.mark.parametrize("kind", ["memory", "socketio"])
async def test_live_connections_are_cut_and_messages_wait(kind: str, running: ClientWorld) -> None:
    bob = await running.open("bob", transport=running.memory if kind == "memory" else eager_socketio)
    alice = await running.open("alice")
    await alice.client.send("bob", "hello")
    assert await bob.read() == ["hello"]
    await running.services.revoke("bob")
    assert not running.services.relay.is_live(bob.client.address)
    await alice.client.send("bob", "while you are out")
    await within(alice.client.flushed())
