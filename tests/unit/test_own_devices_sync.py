"""Several devices of one user: copies of what was sent, what was read where, and who may say so."""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest

from e2ee import session as sessions
from e2ee.errors import AccountKeyChangedError, ForbiddenContentError, UnlistedDeviceError
from e2ee.history_book import FOREVER, EntryState
from e2ee.limits import HOUR_MS, MAX_APPLICATION_DATA, MAX_TIMESTAMP, MEET_OWN_DEVICE_MS, SECOND_MS
from e2ee.messenger import Messenger, Outcome
from e2ee.notices import OwnDevicesChanged
from e2ee.ports import Table
from e2ee.stores import sent_records, trust_records
from e2ee.stores.trust_records import TrustPolicy
from e2ee.trust import mark_forked
from e2ee.wire.content import ContentKind, ReceiptType, encode_application
from e2ee.wire.device_list import DeviceList, DeviceListHash, ListPosition
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import MessageId
from e2ee.wire.sync import ReadMarks, SentCopy
from tests.world import START, Device, World, content_from, unchanged


class Trio(NamedTuple):
    """Alice has two devices, Bob has one. All keep a history."""

    phone: Device
    laptop: Device
    bob: Device


@pytest.fixture
def trio() -> Trio:
    world = World()
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    laptop = world.further_device(phone)
    for device in (phone, laptop, bob):
        device.messenger.history.set_retention(FOREVER)
    return Trio(phone, laptop, bob)


def send(sender: Device, peer: Device, text: bytes | str, lane: Lane = Lane.CHAT) -> MessageId:
    """Send as an application does, to every device of a user."""
    sender.meet(peer)
    for address in sender.messenger.missing_sessions(peer.user_id):
        sender.messenger.start_session(sender.world.devices[address].bundle())
    queued = sender.messenger.send(peer.user_id, text, lane=lane)
    sender.post()
    sender.world.settle()
    return queued.message_id


def texts(device: Device, peer: Device) -> list[bytes | str | None]:
    return [entry.data for entry in device.messenger.history.messages(peer.user_id)]


def test_every_device_of_both_users_has_both_sides_once_and_in_order(trio: Trio) -> None:
    phone, laptop, bob = trio
    expected = []
    for number, sender in enumerate((phone, bob, laptop, bob, phone, laptop)):
        phone.world.wait(1000)
        send(sender, bob if sender is not bob else phone, f"{number}")
        expected.append(f"{number}")
    assert texts(phone, bob) == texts(laptop, bob) == texts(bob, phone) == expected


def test_a_copy_names_its_recipient_and_reaches_the_application_once(trio: Trio) -> None:
    phone, laptop, bob = trio
    message_id = send(phone, bob, "hello")
    [row] = laptop.messenger.inbound()
    assert (row.content.kind, row.content.message_id) == (ContentKind.SYNC, message_id)
    assert row.sender == phone.address
    [entry] = laptop.messenger.history.messages(bob.user_id)
    assert (entry.author, entry.device, entry.peer) == ("alice", phone.address.device_id, "bob")
    assert laptop.messenger.history.conversations()[0].unread == 0


def test_the_longest_message_has_room_for_its_copy_and_a_call_lane_is_not_used_for_it(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "so that the devices know each other")
    queued = phone.messenger.send(bob.user_id, "urgent", lane=Lane.CONTROL)
    lanes = [Envelope.decode(entry.envelope).lane for entry in (*queued.entries, *queued.copies)]
    assert lanes == [Lane.CONTROL, Lane.CHAT]
    phone.messenger.history.delete_conversation(bob.user_id)
    laptop.messenger.history.delete_conversation(bob.user_id)
    phone.messenger.outbox.settle(entry.envelope_id for entry in phone.messenger.outbox.entries())
    for lane in (Lane.CHAT, Lane.CONTROL):
        send(phone, bob, b"x" * (MAX_APPLICATION_DATA if lane is Lane.CHAT else 7000), lane)
    assert [len(data) for data in texts(laptop, bob) if data] == [MAX_APPLICATION_DATA, 7000]


def test_a_device_without_a_session_gets_its_copies_later(trio: Trio) -> None:
    phone, laptop, bob = trio
    phone.meet(bob)
    phone.messenger.start_session(bob.bundle())
    for number in range(3):
        queued = phone.messenger.send(bob.user_id, f"{number}")
        assert (queued.copies, queued.tend) == ((), True)
    phone.post()
    phone.world.settle()
    assert texts(laptop, bob) == ["0", "1", "2"]


def test_a_copy_that_could_not_be_read_is_asked_for_again(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "first")
    send(laptop, bob, "so that the session is answered")
    laptop.forget_sessions(phone)
    send(phone, bob, "lost at first")
    laptop.world.wait(HOUR_MS)
    laptop.world.settle()
    assert texts(laptop, bob) == ["first", "so that the session is answered", "lost at first"]


def test_what_was_read_on_one_device_is_read_on_the_others_even_if_the_word_is_faster(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(laptop, bob, "so that the devices know each other")
    first = send(bob, phone, "first")
    late = MessageId(bytes(15) + b"\7")
    ids = phone.messenger.history.unread(bob.user_id)
    assert ids == (first,)
    phone.messenger.mark_read(bob.user_id, (*ids, late))
    phone.post()
    phone.world.settle()
    for device in (phone, laptop):
        assert device.messenger.history.conversations()[0].unread == 0
        assert device.messenger.history.unread(bob.user_id) == ()
    content = content_from(bob, laptop, message_id=late, body=encode_application("late"))
    laptop.receive(bob.seal(laptop, content.encode()))
    assert laptop.messenger.history.messages(bob.user_id)[-1].state is EntryState.READ
    assert laptop.messenger.history.conversations()[0].unread == 0


def test_copies_are_not_lost_while_a_newer_list_of_ours_is_only_heard_of(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "so that the devices know each other")
    newer = ListPosition(phone.messenger.own_device_list().content.seq + 1, DeviceListHash(bytes(32)))
    heard = content_from(laptop, phone, kind=ContentKind.EMPTY, body=b"", sender_list=newer)
    phone.receive(laptop.seal(phone, heard.encode()))
    queued = phone.messenger.send(bob.user_id, "said meanwhile")
    assert (queued.copies, queued.tend) == ((), True)
    devices = phone.messenger.own_device_list().content.devices
    phone.change_list(*devices)
    phone.post()
    phone.world.settle()
    assert texts(laptop, bob)[-1] == "said meanwhile"


def test_more_than_256_messages_are_marked_in_several_words(trio: Trio) -> None:
    phone, _laptop, bob = trio
    send(phone, bob, "so that the devices know each other")
    ids = tuple(MessageId(number.to_bytes(16, "big")) for number in range(600))
    phone.messenger.mark_read(bob.user_id, ids)
    assert len(phone.messenger.outbox.entries()) == 3


def test_receipts_advance_the_copy_as_they_advance_the_message(trio: Trio) -> None:
    phone, laptop, bob = trio
    message_id = send(phone, bob, "hello")
    for kind, state in ((ReceiptType.DELIVERED, EntryState.DELIVERED), (ReceiptType.READ, EntryState.READ)):
        bob.meet(phone)
        for address in bob.messenger.missing_sessions(phone.user_id):
            bob.messenger.start_session(bob.world.devices[address].bundle())
        bob.messenger.send_receipt(phone.user_id, kind, (message_id,))
        bob.post()
        bob.world.settle()
        for device in (phone, laptop):
            assert device.messenger.history.messages(bob.user_id)[0].state is state


def test_without_a_sent_log_a_device_with_a_session_still_gets_its_copy(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "first")
    phone.messenger = Messenger.open(phone.store, rng=phone.world.random.randbytes, clock=phone.clock, sent_log=False)
    phone.connect()
    send(phone, bob, "second")
    assert texts(laptop, bob) == ["first", "second"]


def test_a_copy_from_another_account_is_refused(trio: Trio) -> None:
    phone, _laptop, bob = trio
    send(bob, phone, "hello")
    for body in (
        SentCopy(bob.user_id, ContentKind.APPLICATION, encode_application("I owe you")).encode(),
        ReadMarks(bob.user_id, (MessageId(bytes(16)),)).encode(),
    ):
        content = content_from(bob, phone, kind=ContentKind.SYNC, body=body)
        with unchanged(phone, Table.UNREADABLE):
            assert isinstance(phone.receive(bob.seal(phone, content.encode())).error, ForbiddenContentError)


@pytest.mark.parametrize(
    ("kind", "error"), [(ContentKind.SYNC, ForbiddenContentError), (ContentKind.APPLICATION, UnlistedDeviceError)]
)
def test_a_second_account_of_the_same_user_id_is_no_device_of_ours(
    trio: Trio, kind: ContentKind, error: type[Exception]
) -> None:
    phone, _laptop, bob = trio
    impostor = phone.world.device("alice", listed=False, one_time_prekeys=False)
    body = encode_application("I owe you")
    if kind is ContentKind.SYNC:
        body = SentCopy(bob.user_id, ContentKind.APPLICATION, body).encode()
    own_list = impostor.messenger.own_device_list()
    content = content_from(phone, phone, kind=kind, body=body, sender_list=own_list.position)
    bundle = phone.bundle().verify(phone.messenger.own_device_list(), phone.world.now)
    account, clock = impostor.messenger.account, sessions.Clock(phone.world.now, phone.world.now)
    session = sessions.start_as_initiator(
        account.party, account.identity_key_pair, bundle, clock, phone.world.random.randbytes
    )
    first = impostor.seal(phone, replace(content, device_list=own_list.signed).encode(), session)
    with unchanged(phone, Table.UNREADABLE):
        assert isinstance(phone.receive(first).error, error)
    assert texts(phone, bob) == []


def test_a_removed_device_writes_nothing_into_our_history(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "before")
    content = content_from(
        laptop,
        phone,
        kind=ContentKind.SYNC,
        body=SentCopy(bob.user_id, ContentKind.APPLICATION, encode_application("never said")).encode(),
    )
    sealed = laptop.seal(phone, content.encode())
    entry = phone.messenger.own_device_list().content.device(phone.address.device_id)
    assert entry is not None
    phone.change_list(entry)
    with unchanged(phone, Table.UNREADABLE):
        assert isinstance(phone.receive(sealed).error, ForbiddenContentError)
    assert texts(phone, bob) == ["before"]
    queued = phone.messenger.send(bob.user_id, "after")
    assert (queued.copies, queued.tend) == ((), False)


def test_a_note_to_ourselves_reaches_our_other_devices_alone(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "so that the devices know each other")
    phone.messenger.send(phone.user_id, "milk, bread")
    phone.post()
    phone.world.settle()
    for device in (phone, laptop):
        [entry] = device.messenger.history.messages(phone.user_id)
        assert (entry.data, entry.author, entry.state) == ("milk, bread", "alice", EntryState.READ)
        assert [each.unread for each in device.messenger.history.conversations()] == [0, 0]


def test_a_list_of_ours_under_another_account_key_is_nothing_that_a_policy_may_accept(trio: Trio) -> None:
    phone, _laptop, _bob = trio
    impostor = phone.world.device("alice", listed=False)
    phone.messenger.contact_book.set_policy(TrustPolicy.UNATTENDED)
    with unchanged(phone), pytest.raises(AccountKeyChangedError):
        phone.messenger.learn_device_lists(phone.user_id, [impostor.messenger.own_device_list().signed])


def test_a_fork_of_our_own_list_stops_copies_and_nothing_else(trio: Trio) -> None:
    phone, laptop, bob = trio
    send(phone, bob, "before")
    forked = content_from(laptop, phone, kind=ContentKind.EMPTY, body=b"")
    position = forked.sender_list
    lie = replace(forked, sender_list=ListPosition(position.seq, DeviceListHash(bytes(32))))
    assert phone.receive(laptop.seal(phone, lie.encode())).outcome is Outcome.CONSUMED
    queued = phone.messenger.send(bob.user_id, "after")
    assert (len(queued.entries), queued.copies, queued.tend) == (1, (), False)


def test_a_list_that_never_was_stops_copies_until_the_device_that_spoke_of_it_has_left(trio: Trio) -> None:
    phone, laptop, bob = trio
    liar = phone.world.further_device(phone)
    send(phone, bob, "so that the devices know each other")
    never = ListPosition(MAX_TIMESTAMP, DeviceListHash(bytes(32)))
    lie = content_from(liar, phone, kind=ContentKind.EMPTY, body=b"", sender_list=never)
    phone.receive(liar.seal(phone, lie.encode()))
    assert phone.messenger.send(bob.user_id, "said meanwhile").copies == ()
    phone.change_list(*(each.messenger.account.listed for each in (phone, laptop)))
    assert len(phone.messenger.send(bob.user_id, "said afterwards").copies) == 1


def test_nothing_is_ever_encrypted_to_this_very_device(trio: Trio) -> None:
    phone, _laptop, bob = trio
    send(phone, bob, "x")
    assert phone.messenger.missing_sessions(phone.user_id) == ()
    bundle = phone.bundle()
    with unchanged(phone), pytest.raises(UnlistedDeviceError):
        phone.messenger.start_session(bundle)


def test_a_device_that_is_new_has_what_waited_when_it_came_once() -> None:
    world = World()
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    phone.meet(bob)
    phone.messenger.start_session(bob.bundle())
    phone.messenger.send(bob.user_id, "before anybody else was there")
    laptop = world.further_device(phone)
    laptop.messenger.history.set_retention(FOREVER)
    phone.messenger.send(bob.user_id, "when the laptop had no session")
    tablet = world.further_device(phone)
    tablet.messenger.history.set_retention(FOREVER)
    phone.post()
    world.settle()
    for device in (laptop, tablet):
        assert sorted(map(str, texts(device, bob))) == [
            "before anybody else was there",
            "when the laptop had no session",
        ]
        assert len(device.messenger.inbound()) == 2


def test_two_devices_of_one_author_whose_clocks_are_apart_stand_as_they_came() -> None:
    world = World()
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    slow = world.further_device(phone, skew=-HOUR_MS)
    bob.messenger.history.set_retention(FOREVER)
    expected = []
    for number, sender in enumerate((phone, bob, slow, bob, slow, phone)):
        world.wait(1000)
        send(sender, phone if sender is bob else bob, f"{number}")
        expected.append(f"{number}")
    assert texts(bob, phone) == expected


def test_devices_of_ours_have_a_session_before_there_is_anything_to_copy_so_that_the_first_copy_goes_at_once(
    trio: Trio,
) -> None:
    phone, laptop, bob = trio
    contacts_are_told(phone, laptop)
    phone.start_session(bob)
    phone.world.settle()
    assert phone.sessions(laptop) == [], "whoever let the other in is given a minute"
    phone.world.wait(MEET_OWN_DEVICE_MS)
    phone.tend()
    phone.world.deliver()
    phone.world.settle()
    assert len(phone.sessions(laptop)) == len(laptop.sessions(phone)) == 1, "one is enough, and both know of it"
    queued = phone.messenger.send(bob.user_id, "at once")
    assert ([entry.recipient for entry in queued.copies], queued.tend) == ([laptop.address], False)
    phone.world.wait(HOUR_MS)
    assert laptop.tend().sessions_wanted == ()


@pytest.mark.parametrize("owed", [True, False])
def test_a_device_of_ours_that_cannot_be_reached_is_tried_less_and_less_often(trio: Trio, owed: bool) -> None:
    phone, laptop, _ = trio
    if not owed:
        contacts_are_told(phone, laptop)
    tries, last = [], START + 6 * HOUR_MS
    while phone.world.now < last:
        tended = phone.messenger.tend()
        assert tended.again_in is not None
        assert tended.again_in >= 5 * SECOND_MS
        if tended.sessions_wanted == (laptop.address,):
            tries.append(phone.world.now)
        phone.world.wait(tended.again_in)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5 * SECOND_MS, HOUR_MS)
    assert tries[0] == START + (0 if owed else MEET_OWN_DEVICE_MS)
    assert len(tries) < 20


def contacts_are_told(device: Device, to: Device) -> None:
    """Take the other reason away for which a session would be wanted."""
    with device.store.write() as tx:
        trust_records.settle_contacts(tx, to.address)


def test_a_removed_device_and_one_whose_lists_forked_start_no_session_with_the_others(trio: Trio) -> None:
    phone, laptop, _ = trio
    laptop.change_list(phone.messenger.account.listed)
    with phone.store.write() as tx:
        assert mark_forked(tx, phone.user_id)
    for _ in range(3):
        phone.world.wait(HOUR_MS)
        for device in (phone, laptop):
            tended = device.messenger.tend()
            assert tended.sessions_wanted == ()
            assert tended.again_in is None or tended.again_in >= 5 * SECOND_MS, "nor is it looked at without a pause"


def test_a_list_of_ours_that_a_new_device_brings_along_is_taken_in_with_all_that_follows(trio: Trio) -> None:
    """The phone let the tablet in, and the tablet's first message reaches the laptop before the server's list does."""
    phone, laptop, bob = trio
    laptop.start_session(bob)
    behind = laptop.snapshot()
    tablet = phone.world.further_device(phone)
    laptop.restore(behind)
    waiting = laptop.messenger.send(bob.user_id, "said before the laptop knew")
    tablet.start_session(laptop)
    told = laptop.receive(tablet.encrypt(laptop, b"", kind=ContentKind.EMPTY))
    assert told.outcome is Outcome.CONSUMED
    assert told.notices == (OwnDevicesChanged((tablet.address.device_id,), ()),)
    assert told.tend
    assert laptop.messenger.own_device_list() == phone.messenger.own_device_list()
    with laptop.store.read() as tx:
        asked = {(each.message_id, each.recipient) for each in sent_records.due_resends(tx)}
        assert (waiting.message_id, tablet.address) in asked
        assert trust_records.contacts_owed(tx) == [tablet.address]
    laptop.post()
    laptop.world.settle()
    tablet.messenger.history.set_retention(FOREVER)
    [row] = [each for each in tablet.messenger.inbound() if each.content.kind == ContentKind.SYNC]
    assert row.content.message_id == waiting.message_id


def test_a_renewed_list_of_ours_that_comes_with_a_message_is_no_change_of_devices(trio: Trio) -> None:
    phone, laptop, _ = trio
    renewed = phone.messenger.account.sign_device_list(following(phone)).signed
    phone.messenger.own_devices.learn([renewed])
    phone.start_session(laptop)
    told = laptop.receive(phone.encrypt(laptop, b"", kind=ContentKind.EMPTY))
    assert (told.outcome, told.notices) == (Outcome.CONSUMED, ())
    assert laptop.messenger.own_device_list().signed == renewed


def following(device: Device) -> DeviceList:
    newest = device.messenger.own_device_list().content
    return replace(newest, seq=newest.seq + 1, previous_hash=newest.hash())
