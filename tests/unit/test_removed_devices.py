"""Devices that were taken out of their user's list: what they sent is read for 45 days, and nothing goes to them."""

from typing import NamedTuple

import pytest

from e2ee.errors import AccountKeyChangedError, E2EEError, RemovedDeviceError, SessionNotFoundError, UnlistedDeviceError
from e2ee.limits import DAY_MS, LATE_ENVELOPE_MS
from e2ee.messenger import Outcome, Reception
from e2ee.ports import Table
from e2ee.stores import trust_records
from e2ee.wire.content import ContentKind
from tests.world import Device, World, talk, unchanged


class Stage(NamedTuple):
    """Alice talks with both devices of Bob."""

    world: World
    alice: Device
    phone: Device
    laptop: Device


@pytest.fixture
def stage() -> Stage:
    world = World("removed")
    alice, phone = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    laptop = world.further_device(phone)
    alice.meet(phone)
    for device in (phone, laptop):
        alice.messenger.start_session(device.bundle())
    alice.messenger.send(phone.user_id, "hello")
    alice.post()
    world.deliver()
    for device in (phone, laptop):
        device.read()
        alice.receive(device.encrypt(alice, "hello"))
        alice.read()
    return Stage(world, alice, phone, laptop)


def retire(stage: Stage) -> None:
    """Bob retires the laptop, and Alice learns of it."""
    stage.phone.change_list(stage.phone.messenger.account.listed)
    stage.alice.meet(stage.phone)


def late(stage: Stage, text: str = "late") -> bytes:
    """What the laptop has sent, and the network keeps."""
    return stage.laptop.encrypt(stage.alice, text)


def refused(reception: Reception) -> type[E2EEError] | type[None]:
    assert reception.outcome is Outcome.UNREADABLE
    return type(reception.error)


def test_a_clock_that_was_a_year_ahead_gives_a_removed_device_no_longer_time(stage: Stage) -> None:
    envelope = late(stage)
    stage.world.now += 365 * DAY_MS
    retire(stage)
    stage.world.now -= 365 * DAY_MS
    stage.alice.messenger.prune()
    stage.world.now += 46 * DAY_MS
    with unchanged(stage.alice, Table.UNREADABLE):
        assert refused(stage.alice.receive(envelope)) is RemovedDeviceError


def test_what_a_removed_device_sent_is_read_for_45_days_with_a_mark_and_refused_by_name_after_that(
    stage: Stage,
) -> None:
    envelopes = [late(stage, f"day {day}") for day in (0, 44, 46, 89)]
    retire(stage)
    for envelope, day in zip(envelopes[:2], (0, 44), strict=True):
        stage.world.now += day * DAY_MS
        stage.alice.messenger.prune()
        assert stage.alice.receive(envelope).outcome is Outcome.STORED
        (row,) = stage.alice.messenger.inbound()
        assert row.from_removed_device
        assert stage.alice.read() == [f"day {day}"]
    stage.world.wait(2 * DAY_MS)
    with unchanged(stage.alice, Table.UNREADABLE):
        assert refused(stage.alice.receive(envelopes[2])) is RemovedDeviceError
    stage.alice.messenger.prune()
    assert stage.alice.sessions(stage.laptop) == [], "nor is anything kept that could decrypt"
    stage.world.wait(43 * DAY_MS)
    assert refused(stage.alice.receive(envelopes[3])) is RemovedDeviceError
    assert stage.alice.messenger.tend().sessions_wanted == (), "nobody asks it for anything"


def test_of_a_device_that_left_long_ago_nothing_is_kept_in_the_end(stage: Stage) -> None:
    envelope = late(stage)
    retire(stage)
    for _ in range(2):
        stage.world.wait(LATE_ENVELOPE_MS + 1)
        stage.alice.messenger.prune()
    assert stage.alice.snapshot()[Table.REMOVED_DEVICES] == ()
    assert refused(stage.alice.receive(envelope)) is SessionNotFoundError


def test_upkeep_before_45_days_keeps_what_can_decrypt(stage: Stage) -> None:
    envelope = late(stage)
    retire(stage)
    stage.world.wait(LATE_ENVELOPE_MS)
    stage.alice.messenger.prune()
    assert stage.alice.receive(envelope).outcome is Outcome.STORED


def test_a_removed_device_starts_no_session(stage: Stage) -> None:
    retire(stage)
    stage.world.wait(1)
    stage.laptop.messenger.start_session(stage.alice.bundle())
    with unchanged(stage.alice, Table.UNREADABLE):
        assert refused(stage.alice.receive(late(stage))) is UnlistedDeviceError


def test_nothing_is_sent_to_a_removed_device(stage: Stage) -> None:
    stage.alice.messenger.send(stage.phone.user_id, "to both")
    assert {entry.recipient for entry in stage.alice.messenger.outbox.entries()} == {
        stage.phone.address,
        stage.laptop.address,
    }
    stage.alice.post()
    retire(stage)
    for _ in range(2):
        queued = stage.alice.messenger.send(stage.phone.user_id, "to one")
        assert {entry.recipient for entry in queued.entries} == {stage.phone.address}
        stage.alice.receive(late(stage))  # which asks for nothing, and gets nothing
    assert stage.alice.messenger.missing_sessions(stage.phone.user_id) == ()
    stage.world.network.in_flight = []
    stage.alice.tend()
    assert {entry.recipient for entry in stage.alice.messenger.outbox.entries()} <= {stage.phone.address}


def test_the_45_days_begin_when_the_removal_was_learned_and_not_anew_with_each_message(stage: Stage) -> None:
    envelopes = [late(stage, str(number)) for number in range(3)]
    stage.world.wait(LATE_ENVELOPE_MS)
    retire(stage)
    for envelope in envelopes[:2]:
        stage.world.wait(LATE_ENVELOPE_MS // 2)
        assert stage.alice.receive(envelope).outcome is Outcome.STORED
    stage.world.wait(2)
    assert refused(stage.alice.receive(envelopes[2])) is RemovedDeviceError


def test_a_store_in_which_the_removal_was_not_noted_counts_from_the_next_message(stage: Stage) -> None:
    """One of a release that did not note it."""
    envelopes = [late(stage, str(number)) for number in range(2)]
    retire(stage)
    with stage.alice.store.write() as tx:
        trust_records.forget_removed(tx, stage.laptop.address)
    assert stage.alice.receive(envelopes[0]).outcome is Outcome.STORED
    stage.world.wait(LATE_ENVELOPE_MS + 1)
    assert refused(stage.alice.receive(envelopes[1])) is RemovedDeviceError


def test_a_removed_device_of_our_own_is_refused_after_45_days_as_well(stage: Stage) -> None:
    stage.phone.receive(stage.laptop.encrypt(stage.phone, "a note"))
    envelope = stage.laptop.encrypt(stage.phone, b"", kind=ContentKind.EMPTY)
    retire(stage)
    stage.world.wait(LATE_ENVELOPE_MS + 1)
    assert refused(stage.phone.receive(envelope)) is RemovedDeviceError
    stage.phone.messenger.prune()
    assert stage.phone.sessions(stage.laptop) == []


def test_a_device_that_is_back_under_a_new_account_key_is_not_taken_for_a_removed_one(stage: Stage) -> None:
    """The last list of the old key holds no device, the one that did the reset neither."""
    world, alice, phone, laptop = stage
    reset = phone.messenger.account_reset.draft()
    phone.messenger.account_reset.accepted()
    world.directory.lists[phone.user_id] += [reset.closing.signed, reset.first.signed]
    with pytest.raises(AccountKeyChangedError) as told:
        alice.meet(phone)
    assert len(alice.snapshot()[Table.REMOVED_DEVICES]) == 2
    alice.messenger.contact_book.accept_change(phone.user_id, told.value.new_safety_number)
    talk(alice, phone)
    for _ in range(2):
        world.wait(LATE_ENVELOPE_MS + 1)
        alice.messenger.prune()
    assert alice.receive(phone.encrypt(alice, "still here")).outcome is Outcome.STORED
    assert refused(alice.receive(late(stage))) is SessionNotFoundError
    assert laptop.messenger.account.party.account_key != phone.messenger.account.party.account_key


def test_of_a_device_with_which_there_is_no_session_nothing_is_noted(stage: Stage) -> None:
    """So a user who changes devices all the time fills nobody's store."""
    for _ in range(3):
        stage.world.further_device(stage.phone)
        stage.alice.meet(stage.phone)
        retire(stage)
    assert len(stage.alice.snapshot()[Table.REMOVED_DEVICES]) == 1
