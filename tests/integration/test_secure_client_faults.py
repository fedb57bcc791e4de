"""SecureClient when something fails: refusals, stale lists, the disk, the key server, the application's own token."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.errors import DeviceListStaleError, StoreUnavailableError
from e2ee.ports import Table
from e2ee.primitives.rng import system_rng
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.stores import records
from e2ee.stores.records import load_contact, save_contact
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.device_list import ListedDevice
from e2ee.wire.identifiers import DeviceId, parse_user_id
from keyserver.client import KeyServerUnavailableError
from tests.client_world import Actor, ClientWorld, FaultyStore, Tap, client_world, within
from tests.contract.relay_world import eventually
from tests.keyserver_world import Clock
from tests.store_files import KEY
from transport_adapters import events
from transport_adapters.base import Outgoing, Refused, SendResult, TransportRefusedError
from transport_adapters.secure_client.directory import UserUnreachableError

BOB = parse_user_id("bob")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


def new_device() -> ListedDevice:
    signing, identity = DeviceSigningKeyPair.generate(system_rng), IdentityKeyPair.generate(system_rng)
    return ListedDevice(DeviceId(system_rng(16)), signing.public, identity.public)


class Refusals:
    """Refuses the first sends, then lets them through."""

    def __init__(self, *codes: str, retry_after: float | None = None) -> None:
        self._codes = list(codes)
        self._retry_after = retry_after

    def __call__(self, outgoing: Outgoing) -> SendResult | None:
        if not self._codes:
            return None
        return Refused(outgoing.envelope_id, self._codes.pop(0), "", self._retry_after)


async def tapped_pair(world: ClientWorld) -> tuple[Actor, Actor, Tap]:
    tap = Tap(world)
    return await world.open("alice", transport=tap), await world.open("bob"), tap


# --- refusals of the relay ---------------------------------------------------------------------------------


async def test_a_contact_that_refuses_is_told_and_forgotten(world: ClientWorld) -> None:
    alice, bob, tap = await tapped_pair(world)
    tap.answer = Refusals("contact_refused")
    message_id = await alice.client.send("bob", "unwanted")
    failed = await alice.event(events.SendFailed)
    assert failed == events.SendFailed(message_id, bob.client.address, "contact_refused")
    await within(alice.client.flushed())
    assert alice.events(events.Sent) == []


@pytest.mark.parametrize("code", ["inbox_full", "rate_limited", "device_unavailable", "internal", "stale_device_list"])
async def test_a_refusal_for_now_is_tried_again_with_the_same_bytes_until_it_passes(
    world: ClientWorld, code: str
) -> None:
    alice, bob, tap = await tapped_pair(world)
    tap.answer = Refusals(code, code, code, retry_after=0.001)
    await alice.client.send("bob", "patience")
    assert await bob.read() == ["patience"]
    await within(alice.client.flushed())
    assert len(tap.sent) == 4
    assert len({outgoing.envelope for outgoing in tap.sent}) == 1
    assert len({outgoing.counter for outgoing in tap.sent}) == 1
    assert len(alice.events(events.Sent)) == 1
    assert len(alice.events(events.DeviceSkipped)) == (1 if code == "device_unavailable" else 0)


async def test_the_pause_that_the_relay_asks_for_is_kept_until_a_new_connection(world: ClientWorld) -> None:
    alice, bob, tap = await tapped_pair(world)
    tap.answer = Refusals("rate_limited", retry_after=3600.0)
    await alice.client.send("bob", "one")
    await alice.client.send("bob", "two")
    flushing = asyncio.create_task(alice.client.flushed())
    await eventually(lambda: len(tap.sent) > 0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(tap.sent) <= 2
    assert tap.connected is not None
    tap.inject(tap.connected)
    await within(flushing)
    assert sorted(map(str, await bob.read(2))) == ["one", "two"]


async def test_what_a_process_gave_up_and_could_not_tell_any_more_the_next_one_tells(
    world: ClientWorld, tmp_path: Path
) -> None:
    store = SqliteStore.create(tmp_path / "alice.db", key=KEY)
    alice, bob = await world.open("alice", store=store), await world.open("bob")
    await alice.client.send("bob", "hello")
    await within(alice.client.flushed())
    queued = alice.client.messenger.send(BOB, "refused").entries[0]
    alice.client.messenger.outbox.settle((), [(queued.envelope_id, "contact_refused")])
    await alice.client.aclose()
    assert alice.events(events.SendFailed) == []
    again = await world.open("alice", store=SqliteStore.open(tmp_path / "alice.db", key=KEY))
    failed = events.SendFailed(queued.message_id, bob.client.address, "contact_refused")
    assert await again.event(events.SendFailed) == failed
    await eventually(lambda: again.client.messenger.outbox.failed() == [])
    assert again.events(events.SendFailed) == [failed]


async def test_a_new_list_of_the_recipient_is_fetched_and_the_envelope_sent_under_it(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await bob.publish(bob.change_list())
    await alice.client.send("bob", "under the new list")
    assert await bob.read() == ["under the new list"]
    contact = alice.client.messenger.contact(BOB)
    assert contact is not None
    assert contact.device_list.content.seq == 2


async def test_a_list_of_ours_that_the_server_lacks_is_published(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    alice.change_list()
    await alice.client.send("bob", "under my new list")
    assert await bob.read() == ["under my new list"]


async def test_an_envelope_for_a_device_that_left_the_list_is_given_up(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await bob.publish(bob.change_list(new_device()))
    message_id = await alice.client.send("bob", "too late")
    assert await alice.event(events.SendFailed) == events.SendFailed(message_id, bob.client.address, "device_removed")
    await within(alice.client.flushed())
    # The device that left is told so, and does not go on.
    assert (await bob.event(events.Ended)).code == "device_revoked"
    with pytest.raises(TransportRefusedError):
        await within(anext(bob.client))


# --- the directory -----------------------------------------------------------------------------------------


async def test_an_unknown_user_is_unreachable_and_nothing_is_queued(world: ClientWorld) -> None:
    alice = await world.open("alice")
    with pytest.raises(UserUnreachableError) as caught:
        await alice.client.send("nobody", "hello?")
    assert caught.value.user_id == "nobody"
    assert alice.count(Table.OUTBOX) == alice.count(Table.CONTACTS) == 0


async def test_a_known_contact_is_written_to_while_the_key_server_is_down(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    world.faults.down |= {"/v1/claims", "/v1/device-lists"}
    await alice.client.send("bob", "without it")
    assert await bob.read() == ["without it"]
    with pytest.raises(KeyServerUnavailableError):
        await alice.client.send("carol", "with it")


async def test_a_device_that_cannot_be_reached_now_does_not_hold_up_the_others(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    # The second device is listed, and never offers a bundle.
    await bob.publish(bob.change_list(new_device(), *bob.client.messenger.own_device_list().content.devices))
    await alice.client.send("bob", "learns of the new list")
    assert await bob.read() == ["learns of the new list"]
    await alice.client.send("bob", "claims, in vain")
    assert await bob.read() == ["claims, in vain"]
    world.faults.down.add("/v1/claims")
    await alice.client.send("bob", "cannot even claim")
    assert await bob.read() == ["cannot even claim"]
    assert "key_server_unavailable" in {event.code for event in alice.events(events.Trouble)}


async def test_a_newer_list_that_a_contact_speaks_of_is_fetched_before_the_next_send(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    signed = bob.change_list()
    await bob.publish(signed)
    await bob.client.send("alice", "I have a new list")
    assert await alice.read() == ["I have a new list"]
    claims = world.faults.asked.count("/v1/claims")
    await alice.client.send("bob", "I know")
    assert await bob.read() == ["I know"]
    # Fetching a list costs the contact no prekey.
    assert world.faults.asked.count("/v1/claims") == claims


async def test_a_newer_list_that_the_server_withholds_stops_sending_by_name(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    with alice.store.write() as tx:
        contact = load_contact(tx, BOB)
        assert contact is not None
        save_contact(tx, type(contact)(BOB, contact.account_key, contact.device_list, heard_seq=7))
    with pytest.raises(DeviceListStaleError):
        await alice.client.send("bob", "to whom?")
    assert alice.count(Table.OUTBOX) == 0
    assert bob.events(events.Unreadable) == []


async def test_a_token_provider_that_fails_in_the_background_stops_nothing(world: ClientWorld) -> None:
    broken = False

    async def provide() -> str:
        if broken:
            raise ZeroDivisionError
        return await world.token("alice")()

    alice, bob = await world.open("alice", token=provide), await world.open("bob")
    broken = True
    # All logins end, as an operator can do: the next request of the prekey check asks the application again.
    alice.client._parts.key_server._login_id, alice.client._parts.key_server._token_until = None, 0.0
    checking = asyncio.create_task(alice.client._directory.keep_supplied())
    await alice.until(lambda: "token_provider_failed" in {each.code for each in alice.events(events.Trouble)})
    broken = False
    await alice.client.send("bob", "still here")
    assert await bob.read() == ["still here"]
    assert alice.events(events.Ended) == []
    checking.cancel()


async def test_a_connection_outlives_its_tokens(tmp_path: Path) -> None:
    # The server's clock stands still, so its tokens count for ever; but its timers run, and ask for a fresh one
    # each second.
    async with client_world(tmp_path, now=Clock(), token_seconds=1) as world:
        alice, bob = await world.talking()
        asked = world.faults.asked
        before = asked.count("/v1/tokens")
        await eventually(lambda: asked.count("/v1/tokens") >= before + 4)
        await alice.client.send("bob", "still connected")
        assert await bob.read() == ["still connected"]
        assert len(alice.events(events.Online)) == len(bob.events(events.Online)) == 1


# --- the disk ----------------------------------------------------------------------------------------------


async def test_a_disk_that_stays_full_acknowledges_nothing_and_ends_the_iteration(
    world: ClientWorld, tmp_path: Path
) -> None:
    path, tap = tmp_path / "bob.db", Tap(world)
    store = FaultyStore(SqliteStore.create(path, key=KEY))
    alice, bob = await world.open("alice"), await world.open("bob", store=store, transport=tap)
    await within(bob.client.caught_up())
    store.failures_left = math.inf
    message_id = await alice.client.send("bob", "does not fit")
    with pytest.raises(StoreUnavailableError):
        await within(anext(bob.client))
    assert (await bob.event(events.Ended)).code == "store_unavailable"
    assert {event.code for event in bob.events(events.Trouble)} == {"store_unavailable"}
    assert tap.acked == []
    await bob.client.aclose()
    again = await world.open("bob", store=SqliteStore.open(path, key=KEY))
    [message] = await again.take(1)
    assert (message.message_id, message.data) == (message_id, "does not fit")
    assert again.count(Table.MESSAGE_IDS) == 1


async def test_a_disk_that_is_full_for_a_moment_costs_a_moment(world: ClientWorld) -> None:
    store, tap = FaultyStore(SqliteStore.create(Path(world.directory) / "bob.db", key=KEY)), Tap(world)
    alice, bob = await world.open("alice"), await world.open("bob", store=store, transport=tap)
    await within(bob.client.caught_up())
    store.failures_left = 4
    await alice.client.send("bob", "in the end")
    await bob.until(lambda: len(bob.events(events.Trouble)) == 4)
    assert await bob.read() == ["in the end"]
    await within(tap.after_acks.wait())
    assert bob.count(Table.MESSAGE_IDS) == 1
    assert bob.events(events.Ended) == []


async def test_a_send_that_the_disk_refuses_raises_and_queues_nothing(world: ClientWorld) -> None:
    store = FaultyStore(SqliteStore.create(Path(world.directory) / "alice.db", key=KEY))
    alice, bob = await world.open("alice", store=store), await world.open("bob")
    await alice.client.send("bob", "one")
    assert await bob.read() == ["one"]
    await within(alice.client.flushed())
    with alice.store.read() as tx:
        before = records.counter(tx, b"send")
    store.failures_left = 1
    with pytest.raises(StoreUnavailableError):
        await alice.client.send("bob", "two")
    with alice.store.read() as tx:
        assert records.counter(tx, b"send") == before
    assert alice.count(Table.OUTBOX) == 0
    await alice.client.send("bob", "three")
    assert await bob.read() == ["three"]
    assert bob.events(events.Unreadable) == []
