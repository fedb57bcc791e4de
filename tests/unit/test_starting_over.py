"""All devices and the recovery code are lost: a new account key that the old one says nothing about."""

from dataclasses import replace

import pytest

from e2ee.errors import AccountKeyChangedError, InvalidSignatureError, MalformedMessageError
from e2ee.limits import MAX_TIMESTAMP
from e2ee.messenger import Messenger, Outcome
from e2ee.ports import Table
from e2ee.stores.memory import MemoryStore
from e2ee.wire.device_list import DeviceListHash, SignedDeviceList
from tests.world import Device, World, talk, unchanged


def lost() -> tuple[World, Device, Device]:
    """Alice talked with Bob on two devices, of which she has none any more."""
    world = World("starting over")
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(alice, bob)
    world.further_device(alice)
    bob.meet(alice)
    return world, alice, bob


def start_over(world: World, before: Device) -> Device:
    """Make the new device. Its list is not published yet."""
    store, held = MemoryStore(), world.directory.lists[before.user_id]
    messenger = Messenger.start_over(store, before.user_id, held, rng=world.random.randbytes, clock=world.clock)
    device = Device(world, store, messenger, one_time_prekeys=False)
    device.clock = world.clock
    world.devices[device.address] = device
    return device


def publish(device: Device) -> None:
    """The server accepts the new key."""
    device.world.directory.lists[device.user_id].append(device.messenger.own_device_list().signed)
    device.messenger.registration.mark_registered()


def test_the_first_list_of_the_new_key_follows_the_newest_that_the_server_has() -> None:
    world, before, _ = lost()
    newest = world.directory.lists[before.user_id][-1].unverified
    after = start_over(world, before)
    first = after.messenger.own_device_list()
    assert (first.content.seq, first.content.previous_hash) == (newest.seq + 1, newest.hash())
    assert first.content.devices == (after.messenger.account.listed,)
    assert first.content.account_key == after.messenger.account.party.account_key != newest.account_key
    first.signed.verify(before.user_id)
    assert after.messenger.registration.is_starting_over()
    publish(after)
    assert not after.messenger.registration.is_starting_over()


def test_a_contact_is_stopped_until_it_accepts_the_new_key_and_reads_what_waited_then() -> None:
    world, before, bob = lost()
    after = start_over(world, before)
    publish(after)
    envelope = after.encrypt(bob, "it is me, with nothing but my login")
    assert bob.receive(envelope).outcome is Outcome.WAITING_FOR_TRUST
    with pytest.raises(AccountKeyChangedError) as told:
        bob.meet(after)
    with unchanged(bob), pytest.raises(AccountKeyChangedError):
        bob.messenger.send(after.user_id, "to whom?")
    assert told.value.new_safety_number == after.messenger.contact_book.safety_number(bob.user_id)
    bob.messenger.contact_book.accept_change(after.user_id, told.value.new_safety_number)
    assert [each.outcome for each in bob.messenger.reconsider(after.user_id)] == [Outcome.STORED]
    assert bob.read() == ["it is me, with nothing but my login"]
    assert after.receive(bob.encrypt(after, "welcome back")).outcome is Outcome.STORED
    assert not bob.messenger.contact_book.is_verified(after.user_id)


def test_a_contact_that_stays_with_the_old_key_goes_on_with_it() -> None:
    """As the old key closed nothing: a server could have had the contact asked for no reason."""
    world, before, bob = lost()
    publish(start_over(world, before))
    with pytest.raises(AccountKeyChangedError):
        bob.meet(before)
    bob.messenger.contact_book.decline_change(before.user_id)
    bob.messenger.send(before.user_id, "still you")
    [envelope] = [each.envelope for each in bob.messenger.outbox.entries() if each.recipient == before.address]
    assert before.receive(envelope).outcome is Outcome.STORED


def test_who_was_overtaken_follows_the_longer_chain_with_the_same_key() -> None:
    world, before, _ = lost()
    after = start_over(world, before)
    key = after.messenger.account
    longer = world.directory.lists[before.user_id]
    longer.append(before.messenger.own_devices.draft_alone().signed)
    after.messenger.registration.restart_over(longer)
    first = after.messenger.own_device_list().content
    assert (first.seq, first.previous_hash) == (longer[-1].unverified.seq + 1, longer[-1].unverified.hash())
    assert Messenger.open(after.store).account == after.messenger.account == key
    publish(after)
    with unchanged(after), pytest.raises(ValueError, match="does not start over"):
        after.messenger.registration.restart_over(longer)


def test_the_chain_of_before_is_known_as_the_servers_and_given_back_to_it() -> None:
    world, before, _ = lost()
    after = start_over(world, before)
    publish(after)
    held = world.directory.lists[before.user_id]
    with unchanged(after):
        assert after.messenger.own_devices.learn(held) == after.messenger.own_device_list()
    assert after.messenger.own_devices.lists_after(0) == tuple(held)
    following = replace(held[-2].unverified, seq=held[-1].unverified.seq + 1, previous_hash=held[-1].unverified.hash())
    stolen = before.messenger.account.sign_device_list(following).signed
    with unchanged(after), pytest.raises(AccountKeyChangedError):
        after.messenger.own_devices.learn([stolen])


@pytest.mark.parametrize(
    "case",
    ["another user's", "forged", "a link lacks", "the first lacks", "the last number", "links of two chains", "none"],
)
def test_what_is_no_chain_of_the_user_makes_no_account(case: str) -> None:
    world, before, bob = lost()
    before.change_list(before.messenger.account.listed)
    held = world.directory.lists[before.user_id]
    content = held[1].unverified
    astray = replace(content, previous_hash=DeviceListHash(bytes(range(32))))
    cases: dict[str, tuple[list[SignedDeviceList], type[Exception]]] = {
        "another user's": ([*held[:1], *world.directory.lists[bob.user_id]], InvalidSignatureError),
        "forged": ([held[0], replace(held[1], signature=bytes(64))], InvalidSignatureError),
        "a link lacks": ([held[0], held[2]], MalformedMessageError),
        "the first lacks": (held[1:], MalformedMessageError),
        "the last number": (
            [before.messenger.account.sign_device_list(replace(content, seq=MAX_TIMESTAMP)).signed],
            MalformedMessageError,
        ),
        "links of two chains": (
            [held[0], before.messenger.account.sign_device_list(astray).signed],
            MalformedMessageError,
        ),
        "none": ([], ValueError),
    }
    lists, error = cases[case]
    store = MemoryStore()
    with pytest.raises(error):
        Messenger.start_over(store, before.user_id, lists)
    with store.read() as tx:
        assert not any(tx.count(table) for table in Table)
