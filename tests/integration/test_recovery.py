"""All devices are lost: a code and an export give the account back, over a real server."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from e2ee.errors import MalformedMessageError, WrongRecoveryCodeError
from e2ee.history_book import FOREVER
from e2ee.messenger import Messenger
from e2ee.primitives.rng import system_rng
from e2ee.recovery import RecoveryCode
from e2ee.stores.memory import MemoryStore
from keyserver.client import KeyServerRefusedError
from tests.client_world import QUICK, Actor, ClientWorld, client_world, within
from tests.linking_world import link
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient

CODE = RecoveryCode(bytes(range(20)))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def recover(world: ClientWorld, export: bytes | BinaryIO | None, user: str = "alice", **options: Any) -> Actor:
    told, store = list[events.Event](), MemoryStore()
    given: dict[str, Any] = {"code": CODE, "token_provider": world.token(user), "transport": world.memory}
    client = await within(
        SecureClient.recover(
            store=store, server=world.url, user=user, export=export, pace=QUICK, on_event=told.append, **given | options
        )
    )
    world._clients.push_async_callback(client.aclose)
    await within(client.online())
    return Actor(client, store, told, asyncio.Event())


async def test_the_account_comes_back_with_its_contacts_and_their_verification(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    number = await alice.client.contacts.safety_number("bob")
    await alice.client.contacts.compare("bob", number)
    await alice.client.history.set_retention(FOREVER)
    await bob.client.send("alice", "for the history")
    assert await alice.read() == ["for the history"]
    past = await alice.client.history.messages("bob")
    export = io.BytesIO(b"".join(alice.client.messenger.backup.export(CODE)))
    second = await link(world, alice)
    await alice.client.aclose()

    again = await recover(world, export)
    assert again.client.address != alice.client.address
    assert await again.client.contacts.safety_number("bob") == number
    assert await again.client.contacts.is_verified("bob")
    assert await again.client.history.messages("bob") == past
    assert (await again.client.history.merge(export, CODE)).messages == 0
    assert await again.client.devices.listed() == [again.client.address.device_id]
    assert (await second.event(events.Ended)).code == "device_revoked"

    await again.client.send("bob", "back again")
    assert await bob.read() == ["back again"]
    assert bob.events(events.TrustNeeded) == []
    await bob.client.send("alice", "welcome")
    assert await again.read() == ["welcome"]


async def test_another_code_or_a_changed_file_recovers_nothing(world: ClientWorld) -> None:
    alice = await world.open("alice")
    export = alice.client.messenger.backup.without_history(CODE)
    for wrong in ({"code": RecoveryCode.generate(system_rng)}, {"export": export[:-1] + bytes((export[-1] ^ 1,))}):
        with pytest.raises(WrongRecoveryCodeError):
            await recover(world, **{"export": export, **wrong})  # type: ignore[arg-type]  # either of the two
    assert await alice.client.devices.listed() == [alice.client.address.device_id]


async def test_an_empty_file_is_no_export_whatever_was_left_with_the_server(world: ClientWorld) -> None:
    alice = await world.open("alice")
    await alice.client.devices.set_recovery(CODE)
    with pytest.raises(MalformedMessageError):
        await recover(world, b"")


async def test_an_export_of_before_a_reset_is_worth_nothing_any_more(world: ClientWorld) -> None:
    alice = await world.open("alice")
    export = alice.client.messenger.backup.without_history(CODE)
    await alice.client.devices.reset_account()
    with pytest.raises(KeyServerRefusedError, match="account_key_changed"):
        await recover(world, export)
    assert await alice.client.devices.listed() == [alice.client.address.device_id]


async def test_what_was_left_with_the_server_brings_the_account_back(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await alice.client.devices.set_recovery(CODE)
    await alice.client.aclose()
    again = await recover(world, None)
    assert again.client.messenger.account.account_key_pair == alice.client.messenger.account.account_key_pair
    await again.client.send("bob", "back again")
    assert await bob.read() == ["back again"]
    assert bob.events(events.TrustNeeded) == []


@pytest.mark.parametrize("how", ["never", "deleted", "reset"])
async def test_there_is_nothing_to_recover_from_the_server(world: ClientWorld, how: str) -> None:
    alice = await world.open("alice")
    if how != "never":
        await alice.client.devices.set_recovery(CODE)
    if how == "deleted":
        await alice.client.devices.set_recovery(None)
    if how == "reset":
        await alice.client.devices.reset_account()
    with pytest.raises(ValueError, match="left nothing with the server"):
        await recover(world, None)


async def test_another_users_export_and_a_store_in_use_are_refused(world: ClientWorld) -> None:
    alice = await world.open("alice")
    export = alice.client.messenger.backup.without_history(CODE)
    with pytest.raises(ValueError, match="not one of bob"):
        await recover(world, export, user="bob")


async def test_a_recovery_that_was_interrupted_is_finished_when_the_client_is_opened(world: ClientWorld) -> None:
    alice = await world.open("alice")
    export = alice.client.messenger.backup.without_history(CODE)
    await alice.client.aclose()
    store = MemoryStore()
    interrupted = Messenger.recover(store, export, CODE)
    again = await world.open("alice", store=store)
    assert await again.client.devices.listed() == [interrupted.address.device_id]
    assert not again.client.messenger.registration.is_recovering()
