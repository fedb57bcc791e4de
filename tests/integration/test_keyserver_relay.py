"""What the key service tells the relay: how devices stand, whom a token speaks for, who left."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from e2ee.limits import MINUTE_MS
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId
from keyserver.service.device_lists import DeviceListService
from tests.keyserver_world import TestDevice, World, world
from transport_adapters.base import ListClaim
from transport_adapters.server.ports import OK, SendCheck, StaleList, TokenRefusedError, Unavailable
from transport_adapters.server.posting import Posted, Stored


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def newest(device: TestDevice) -> ListClaim:
    content = device.user.lists[-1].unverified
    return ListClaim(content.seq, content.hash().raw)


def posted_to(recipient: DeviceAddress, number: int) -> Posted:
    sender = DeviceAddress(UserId("alice"), DeviceId(bytes(16)))
    envelope = Envelope(EnvelopeId(bytes((number,)) * 16), sender, recipient, Lane.CHAT, 3600, b"ciphertext")
    return Posted(envelope, envelope.encode(), number + 1)


async def check(
    server: World, sender: TestDevice, recipient: DeviceAddress, sender_list: ListClaim, recipient_list: ListClaim
) -> SendCheck:
    services = server.app.services
    return await services.database.write(
        lambda connection: services.relay.directory.check_send(
            connection, sender.address, recipient, sender_list, recipient_list
        )
    )


async def test_a_send_between_listed_devices_with_current_lists_passes(server: World) -> None:
    alice, _ = await server.join("alice")
    bob, _ = await server.join("bob")
    assert await check(server, alice, bob.address, newest(alice), newest(bob)) == OK


async def test_an_outdated_list_of_either_side_is_named_with_the_newest(server: World) -> None:
    alice, alices = await server.join("alice")
    bob, bobs = await server.join("bob")
    before = newest(alice), newest(bob)
    laptop = bob.user.device()
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    stale = await check(server, alice, bob.address, before[0], before[1])
    devices = {bob.address.device_id, laptop.address.device_id}
    assert isinstance(stale, StaleList)
    assert (stale.user_id, stale.seq, set(stale.device_ids)) == (bob.user.user_id, 2, devices)
    await alices.publish_device_list(alice.user.next_list(alice))
    stale = await check(server, alice, bob.address, before[0], newest(bob))
    assert stale == StaleList(alice.user.user_id, 2, (alice.address.device_id,))


async def test_the_right_number_with_another_hash_is_outdated_too(server: World) -> None:
    alice, _ = await server.join("alice")
    bob, _ = await server.join("bob")
    forked = ListClaim(newest(bob).seq, bytes(32))
    assert isinstance(await check(server, alice, bob.address, newest(alice), forked), StaleList)


async def test_a_listed_device_that_never_registered_is_unavailable(server: World) -> None:
    alice, _ = await server.join("alice")
    bob, bobs = await server.join("bob")
    ghost = bob.user.device()
    await bobs.publish_device_list(bob.user.next_list(bob, ghost))
    assert await check(server, alice, ghost.address, newest(alice), newest(bob)) == Unavailable()


async def test_pending_and_retired_devices_neither_send_nor_receive(server: World) -> None:
    alice, _ = await server.join("alice")
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    for lists in ([], [(bob, laptop), (bob,)]):
        for devices in lists:
            await bobs.publish_device_list(bob.user.next_list(*devices))
        assert await check(server, alice, laptop.address, newest(alice), newest(bob)) == Unavailable()
        assert await check(server, laptop, alice.address, newest(bob), newest(alice)) == Unavailable()


async def test_an_unknown_user_looks_like_one_without_a_list(server: World) -> None:
    alice, _ = await server.join("alice")
    registered = server.user("carol").device()
    await server.client(registered).register_device(registered.signing.public, registered.identity.public)
    claim = ListClaim(1, bytes(32))
    unknown = DeviceAddress(UserId("nobody"), DeviceId(bytes(16)))
    for address in (registered.address, unknown):
        assert await check(server, alice, address, newest(alice), claim) == StaleList(address.user_id, 0, ())


async def test_a_token_speaks_for_its_device_until_it_expires_or_the_device_leaves(server: World) -> None:
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    tokens = server.app.services.relay.tokens
    token = await laptops.device_token()
    principal = await tokens.verify(token)
    assert (principal.address, principal.token_version) == (laptop.address, 0)
    assert principal.expires_at == server.clock() + 15 * MINUTE_MS
    for bad in ("", "a.b.c", await laptop.host_token()):
        with pytest.raises(TokenRefusedError) as refused:
            await tokens.verify(bad)
        assert refused.value.code == "token_invalid"
    await bobs.publish_device_list(bob.user.next_list(bob))
    with pytest.raises(TokenRefusedError) as refused:
        await tokens.verify(token)
    assert refused.value.code == "device_revoked"
    expiring = await bobs.device_token()
    server.clock.pass_ms(15 * MINUTE_MS)
    with pytest.raises(TokenRefusedError) as refused:
        await tokens.verify(expiring)
    assert refused.value.code == "token_expired"


async def test_whoever_left_is_reported_once_and_after_the_commit(server: World) -> None:
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    reported: list[DeviceAddress] = []
    standing = server.app.services.context.device_lists
    service = DeviceListService(
        standing.database, standing.now, standing.policy, standing.limit, reported.extend, standing.remove_inboxes
    )
    without = bob.user.next_list(bob)
    for _ in range(2):
        await service.publish(bob.user.user_id, without)
    assert reported == [laptop.address]


async def test_the_inbox_of_a_device_that_left_is_gone_with_what_waited_in_it_and_others_are_not(server: World) -> None:
    bob, bobs = await server.join("bob")
    laptop = bob.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    await bobs.publish_device_list(bob.user.next_list(bob, laptop))
    services = server.app.services
    batch = [posted_to(address, number) for number, address in enumerate((bob.address, laptop.address))]

    def post(connection: Connection) -> None:
        posting = services.relay.mailbox.posting(connection, batch)
        assert all(isinstance(posting.append(each, lambda: OK, server.clock()), Stored) for each in batch)
        posting.flush()

    await services.database.write(post)
    await bobs.publish_device_list(bob.user.next_list(bob))
    tables = services.relay.mailbox.tables

    def left(connection: Connection) -> list[list[bytes]]:
        inboxes = connection.execute(select(tables.inboxes.c.device_id)).scalars().all()
        waiting = connection.execute(select(tables.envelopes.c.envelope_id)).scalars().all()
        return [list(inboxes), list(waiting)]

    kept = [[bob.address.device_id.raw], [batch[0].envelope.envelope_id.raw]]
    assert await services.database.read(left) == kept
