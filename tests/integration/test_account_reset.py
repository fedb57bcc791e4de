"""A device was stolen: the account gets a new key, over a real server, and what everybody sees of it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2ee.errors import AccountKeyChangedError
from e2ee.ports import Table
from e2ee.stores import trust_records
from e2ee.stores.trust_records import Decision
from e2ee.wire.identifiers import UserId
from keyserver.client import KeyServerRefusedError, KeyServerUnavailableError
from tests.client_world import Actor, ClientWorld, Gate, client_world, within
from tests.linking_world import link
from transport_adapters import events

ALICE = UserId("alice")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def accept(actor: Actor) -> None:
    """See both numbers and accept the new one."""
    change = await actor.client.contacts.change("alice")
    assert change is not None
    assert change.old_safety_number != change.new_safety_number
    await actor.client.contacts.accept_change("alice", change.new_safety_number)


async def test_the_stolen_device_is_out_and_contacts_go_on_once_they_accepted_the_new_key(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    stolen = await link(world, alice)
    before = alice.client.messenger.account.party
    await alice.client.devices.reset_account()
    after = alice.client.messenger.account.party
    assert (after.account_key != before.account_key, after.address) == (True, before.address)
    assert alice.events(events.OwnDevicesChanged)[-1].removed == (stolen.client.address.device_id,)
    assert (await stolen.event(events.Ended)).code == "device_revoked"

    await alice.client.send("bob", "under the new key")
    assert (await bob.event(events.TrustNeeded)).user_id == "alice"
    with pytest.raises(AccountKeyChangedError):
        await bob.client.send("alice", "to whom?")
    await accept(bob)
    assert await bob.read() == ["under the new key"]
    await bob.client.send("alice", "accepted")
    assert await alice.read() == ["accepted"]
    with bob.store.read() as tx:
        decided = [each.decision for each in trust_records.decisions(tx, ALICE)]
    assert decided == [Decision.PINNED, Decision.KEY_CLOSED, Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED]


async def test_the_old_key_adds_no_device_any_more(world: ClientWorld) -> None:
    alice = await world.open("alice")
    stolen = await link(world, alice)
    old = stolen.client.messenger.account
    await alice.client.devices.reset_account()
    own = alice.client.messenger.own_device_list().content
    forged = old.sign_device_list(
        replace(
            own,
            account_key=old.party.account_key,
            seq=own.seq + 1,
            previous_hash=own.hash(),
            devices=(old.listed,),
        )
    )
    with pytest.raises(KeyServerRefusedError, match="account_key_changed"):
        await alice.client._parts.key_server.publish_device_list(forged.signed)


async def test_what_waited_is_encrypted_anew_and_sent_under_the_new_key(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, bob = await world.open("alice", transport=gate), await world.open("bob")
    await alice.client.send("bob", "hello")
    assert await bob.read() == ["hello"]
    await gate.shut()
    await alice.client.send("bob", "it waited")
    await alice.client.devices.reset_account()
    assert (alice.count(Table.OUTBOX), alice.count(Table.SESSIONS)) == (0, 0)
    gate.reopen()
    await bob.event(events.TrustNeeded)
    await accept(bob)
    assert await bob.read() == ["it waited"]


async def test_without_a_sent_log_what_waited_is_lost_and_said_to_be(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, bob = await world.open("alice", transport=gate), await world.open("bob")
    await alice.client.send("bob", "hello")
    assert await bob.read() == ["hello"]
    await gate.shut()
    alice.client.messenger._keeps_contents = False
    await alice.client.send("bob", "it waited")
    await alice.client.devices.reset_account()
    failed = alice.events(events.SendFailed)
    assert [(each.recipient, each.code) for each in failed] == [(bob.client.address, "account_reset")]
    assert alice.count(Table.OUTBOX) == 0


async def test_a_lost_answer_is_made_good_when_the_client_is_opened_again(world: ClientWorld) -> None:
    alice, bob = await world.talking()

    def lose(_: dict[str, object]) -> None:
        raise ConnectionError

    world.faults.tamper["/v1/account-resets"] = lose
    with pytest.raises(KeyServerUnavailableError):
        await within(alice.client.devices.reset_account())
    pending = alice.client.messenger.account_reset.pending()
    assert pending is not None
    assert alice.client.messenger.account.party.account_key != pending.account.party.account_key
    world.faults.tamper.clear()
    await within(alice.client._directory._bring_own_lists_up_to_date())
    assert alice.client.messenger.account.party.account_key == pending.account.party.account_key
    assert alice.client.messenger.account_reset.pending() is None
    await alice.client.send("bob", "after all")
    await bob.event(events.TrustNeeded)
    await accept(bob)
    assert await bob.read() == ["after all"]
