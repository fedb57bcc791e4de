"""Devices that are away for weeks, with a clock that is set: what they can read when they come back, and who can reach
them meanwhile.

The relay here keeps an envelope for 28 days, as the real one does at most, and then says that it dropped it.
"""

from copy import copy
from dataclasses import dataclass, field
from typing import Final

import pytest

from e2ee.account import PreKeyKind
from e2ee.errors import PreKeyExpiredError
from e2ee.limits import (
    DAY_MS,
    DEVICE_LIST_LIFETIME_MS,
    LATE_ENVELOPE_MS,
    MAX_TTL_SECONDS,
    MINUTE_MS,
    PREKEY_LIFETIME_MS,
    PREKEY_ROTATION_MS,
    SECOND_MS,
)
from e2ee.messenger import DeliveryPosition, Outcome
from e2ee.prekey_supply import ServerCounts
from e2ee.stores import records
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, PreKeyId
from tests.world import START, Device, Published, World, talk, unchanged

TTL_MS: Final = MAX_TTL_SECONDS * SECOND_MS


@dataclass
class Inbox:
    """What waits for one device at the relay."""

    world: World
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    """When its senders were told that the device's list has expired."""

    def post(self, sender: Device) -> None:
        """Take everything that a device has queued."""
        sender.post()
        self.rows += [(self.world.now, envelope) for envelope in self.world.network.in_flight]
        self.world.network.in_flight = []

    def deliver(self, device: Device) -> tuple[list[Outcome], list[DeviceAddress]]:
        """Deliver as a relay does, expired rows as dropped; return what became of the rest, and who sent what is not.

        The device does its upkeep after that, and not before, as it was offline.
        """
        outcomes, dropped = [], []
        for seq, (sent_at, envelope) in enumerate(self.rows, start=1):
            position, sender = DeliveryPosition(1, seq), Envelope.decode(envelope).sender
            if self.world.now - sent_at > TTL_MS:
                device.messenger.delivery.note_dropped(position, sender)
                dropped.append(sender)
            else:
                outcomes.append(device.messenger.receive(envelope, position).outcome)
        self.rows = []
        device.messenger.prune()
        return outcomes, dropped


def say(inbox: Inbox, sender: Device, recipient: Device, text: str) -> None:
    """Say something to a device that is offline, with the prekeys that the server has of it."""
    if sender.meet(recipient):
        inbox.told.append(inbox.world.now)
    for address in sender.messenger.missing_sessions(recipient.user_id):
        sender.messenger.start_session(inbox.world.directory.claim(address))
    sender.messenger.send(recipient.user_id, text)
    inbox.post(sender)


def away(days: int, *, one_time_prekeys: bool) -> tuple[Device, Inbox, list[str]]:
    """Let Bob be away, while a friend writes every day, and somebody who never wrote before on every fifth day."""
    world = World()
    friend, bob = world.device("friend", one_time_prekeys=False), world.device("bob", one_time_prekeys=one_time_prekeys)
    bob.publish()
    talk(friend, bob)
    inbox, said = Inbox(world), []
    for day in range(days):
        say(inbox, friend, bob, f"day {day}")
        said.append(f"day {day}")
        if day % 5 == 0:
            say(inbox, world.device(f"stranger-{day}", one_time_prekeys=False), bob, f"hello on day {day}")
            said.append(f"hello on day {day}")
        world.wait(DAY_MS)
    return bob, inbox, said


@pytest.mark.parametrize("one_time_prekeys", [True, False])
def test_a_user_who_was_away_for_27_days_reads_everything(one_time_prekeys: bool) -> None:
    bob, inbox, said = away(27, one_time_prekeys=one_time_prekeys)
    outcomes, dropped = inbox.deliver(bob)
    assert (set(outcomes), dropped) == ({Outcome.STORED}, [])
    assert bob.read() == said
    assert inbox.told == [], "its device list has not expired either"


def test_a_user_who_was_away_for_40_days_was_reachable_reads_28_days_and_is_told_of_the_rest() -> None:
    bob, inbox, said = away(40, one_time_prekeys=False)
    outcomes, dropped = inbox.deliver(bob)
    assert set(outcomes) == {Outcome.STORED}
    kept = len(outcomes)
    assert bob.read() == said[-kept:], "what is at most 28 days old, in order, over the gap"
    assert said[-kept].endswith("day 12")
    assert len(dropped) == len(said) - kept
    assert {address.user_id for address in dropped} == {"friend", "stranger-0", "stranger-5", "stranger-10"}


def test_whoever_writes_to_a_user_who_was_away_for_40_days_is_told_that_the_list_expired_until_it_is_renewed() -> None:
    bob, inbox, _ = away(40, one_time_prekeys=False)
    friend = next(device for device in inbox.world.devices.values() if device.user_id == "friend")
    first, *_ = inbox.told
    assert first == START + DEVICE_LIST_LIFETIME_MS
    assert len(inbox.told) == 10 + 2, "the friend each day, and two strangers"
    inbox.deliver(bob)
    renewed = bob.messenger.own_devices.draft_renewed()
    assert renewed is not None
    bob.messenger.own_devices.learn([renewed.signed])
    inbox.world.directory.lists[bob.user_id].append(renewed.signed)
    say(inbox, friend, bob, "welcome back")
    assert len(inbox.told) == 10 + 2
    assert inbox.deliver(bob) == ([Outcome.STORED], [])


def test_what_is_said_after_the_return_is_read_at_once_by_both() -> None:
    bob, inbox, _ = away(40, one_time_prekeys=False)
    inbox.deliver(bob)
    bob.publish()
    bob.read()
    for name in ("friend", "stranger-15", "stranger-35"):
        peer = next(device for device in inbox.world.devices.values() if device.user_id == name)
        for sender, recipient in ((bob, peer), (peer, bob)):
            sender.meet(recipient)
            assert recipient.receive(sender.encrypt(recipient, "back")).outcome is Outcome.STORED


def test_a_first_message_under_a_replaced_prekey_is_read_for_45_days_and_then_refused() -> None:
    for wait, outcome in ((LATE_ENVELOPE_MS, Outcome.STORED), (LATE_ENVELOPE_MS + DAY_MS, Outcome.UNREADABLE)):
        world = World()
        alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
        bob.publish()
        envelope = alice.encrypt(bob, "slow")
        world.wait(PREKEY_ROTATION_MS)
        bob.publish()
        world.wait(wait)
        bob.publish()
        bob.messenger.prune()
        assert bob.receive(envelope).outcome is outcome


def test_a_device_that_never_comes_back_is_reachable_until_its_prekeys_expire_and_not_beyond() -> None:
    world = World()
    bob = world.device("bob", one_time_prekeys=False)
    bob.publish()
    world.wait(PREKEY_LIFETIME_MS - DAY_MS)
    early = world.device("early", one_time_prekeys=False)
    early.start_session(bob)
    world.wait(2 * DAY_MS)
    late = world.device("late", one_time_prekeys=False)
    with pytest.raises(PreKeyExpiredError):
        late.start_session(bob)


def test_a_crash_at_every_rotation_of_a_year_leaves_one_set_of_keys_and_nobody_unreachable() -> None:
    """Published, crashed before the confirmation, published again: each time the same bytes."""
    world = World()
    bob = world.device("bob", one_time_prekeys=False)
    for week in range(52):
        first = bob.messenger.registration.due_prekeys(ServerCounts(25, 25))
        bob.restart()
        again = bob.messenger.registration.due_prekeys(ServerCounts(25, 25))
        assert first == again
        assert not first.is_empty
        world.directory.publish(bob.address, again)
        bob.messenger.registration.prekeys_published(again.prekey_ids)
        bob.messenger.prune()
        if week % 13 == 0:
            peer = world.device(f"peer-{week}", one_time_prekeys=False)
            assert bob.receive(peer.encrypt(bob, "hello")).outcome is Outcome.STORED
        world.wait(PREKEY_ROTATION_MS)


ENOUGH: Final = ServerCounts(25, 25)


def offered(world: World, bob: Device) -> tuple[PreKeyId, PreKeyId]:
    held = world.directory.prekeys[bob.address]
    return held.signed_prekey.prekey_id, held.last_resort.prekey_id


def lonely_bob() -> tuple[World, Device, Published]:
    world = World()
    bob = world.device("bob", one_time_prekeys=False)
    bob.publish()
    return world, bob, copy(world.directory.prekeys[bob.address])


def test_a_server_that_offers_what_it_confirmed_is_given_nothing() -> None:
    world, bob, _ = lonely_bob()
    world.wait(DAY_MS)
    with unchanged(bob):
        assert bob.messenger.registration.due_prekeys(ENOUGH, offered(world, bob)).is_empty


def test_what_the_server_has_lost_is_published_again_with_the_same_bytes() -> None:
    world, bob, before = lonely_bob()
    world.wait(DAY_MS)
    publication = bob.messenger.registration.due_prekeys(ENOUGH, ())
    assert (publication.signed_prekey, publication.last_resort) == (before.signed_prekey, before.last_resort)


def test_a_server_restored_to_older_keys_is_given_the_present_ones_and_the_old_ones_are_read_meanwhile() -> None:
    world, bob, old = lonely_bob()
    world.wait(PREKEY_ROTATION_MS)
    bob.publish()
    world.wait(DAY_MS)
    world.directory.prekeys[bob.address] = copy(old)
    late = world.device("late", one_time_prekeys=False)
    assert bob.receive(late.encrypt(bob, "under the old keys")).outcome is Outcome.STORED
    publication = bob.messenger.registration.due_prekeys(ENOUGH, offered(world, bob))
    world.directory.publish(bob.address, publication)
    bob.messenger.registration.prekeys_published(publication.prekey_ids)
    assert world.directory.prekeys[bob.address].signed_prekey != old.signed_prekey
    assert bob.messenger.registration.due_prekeys(ENOUGH, offered(world, bob)).is_empty, "and that is all"
    early = world.device("early", one_time_prekeys=False)
    assert bob.receive(early.encrypt(bob, "under the present keys")).outcome is Outcome.STORED


def test_a_restored_store_replaces_the_keys_that_it_does_not_know() -> None:
    world, bob, _ = lonely_bob()
    backup = bob.snapshot()
    world.wait(PREKEY_ROTATION_MS)
    bob.publish()
    bob.restore(backup)
    bob.restart()
    publication = bob.messenger.registration.due_prekeys(ENOUGH, offered(world, bob))
    world.directory.publish(bob.address, publication)
    bob.messenger.registration.prekeys_published(publication.prekey_ids)
    peer = world.device("peer", one_time_prekeys=False)
    assert bob.receive(peer.encrypt(bob, "hello")).outcome is Outcome.STORED


def test_a_server_that_always_claims_to_offer_other_keys_gets_one_pair_an_hour() -> None:
    world, bob, _ = lonely_bob()
    for _ in range(100):
        world.wait(MINUTE_MS)
        bob.messenger.registration.prekeys_published(
            bob.messenger.registration.due_prekeys(ENOUGH, (PreKeyId(1), PreKeyId(2))).prekey_ids
        )
    with bob.store.read() as tx:
        assert len(list(records.prekeys(tx, PreKeyKind.SIGNED))) == 2
