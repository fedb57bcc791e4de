"""The history: one record for each message, in its place, for as long as it is kept."""

from random import Random

import pytest

from e2ee.errors import CorruptStateError
from e2ee.history_book import FOREVER, EntryState, HistoryEntry
from e2ee.limits import DAY_MS, HOUR_MS, LATE_ENVELOPE_MS, MINUTE_MS
from e2ee.ports import Table
from e2ee.wire.content import ContentKind, Receipt, ReceiptType, encode_application
from e2ee.wire.identifiers import ConversationId, MessageId
from tests.world import START, Device, World, content_from, talk, unchanged

DEFAULT = ConversationId("")


@pytest.fixture
def pair() -> tuple[Device, Device]:
    world = World()
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    for device in (alice, bob):
        device.messenger.history.set_retention(FOREVER)
    return alice, bob


def texts(entries: list[HistoryEntry]) -> list[bytes | str | None]:
    return [entry.data for entry in entries]


def page(device: Device, peer: Device) -> list[bytes | str | None]:
    return texts(device.messenger.history.messages(peer.user_id))


def say(sender: Device, recipient: Device, text: str, *, sent_at: int | None = None) -> bytes:
    """Seal a message that claims to have been written at a time."""
    now = sender.world.now if sent_at is None else sent_at
    content = content_from(sender, recipient, body=encode_application(text), sent_at=now)
    return sender.seal(recipient, content.encode())


def test_nothing_is_kept_until_an_application_asks_for_it() -> None:
    world = World()
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(alice, bob)
    for device, peer in ((alice, bob), (bob, alice)):
        assert device.messenger.history.retention() == 0
        assert device.messenger.history.conversations() == []
        assert page(device, peer) == []
        assert device.snapshot()[Table.HISTORY] == device.snapshot()[Table.CONVERSATIONS] == ()


def test_both_ends_keep_the_same_messages_in_the_same_order(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    for number in range(6):
        sender, recipient = (alice, bob) if number % 3 else (bob, alice)
        recipient.receive(sender.encrypt(recipient, f"message {number}"))
    expected = [f"message {number}" for number in range(6)]
    assert page(alice, bob) == page(bob, alice) == expected
    mine, theirs = (device.messenger.history.messages(peer.user_id) for device, peer in ((alice, bob), (bob, alice)))
    assert [each.message_id for each in mine] == [each.message_id for each in theirs]
    assert [each.author for each in mine] == [each.author for each in theirs]


def test_a_message_that_comes_twice_is_one_message(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    content = content_from(alice, bob, body=encode_application("once")).encode()
    for _ in range(2):
        bob.receive(alice.seal(bob, content))  # two ciphertexts of one message, as after asking again
    envelope = alice.seal(bob, content)
    for _ in range(2):
        bob.receive(envelope)
    assert page(bob, alice) == ["once"]
    assert bob.messenger.history.conversations()[0].unread == 1


def test_one_author_cannot_replace_the_message_of_another_by_its_id(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    message_id = MessageId(bytes(16))
    for sender in (alice, carol):
        content = content_from(sender, bob, message_id=message_id, body=encode_application(sender.user_id))
        bob.receive(sender.seal(bob, content.encode()))
    assert page(bob, alice) == ["alice"]
    assert page(bob, carol) == ["hello", "hello", "carol"]


def test_a_late_message_stands_before_the_later_ones_of_its_device_and_after_the_earlier_ones(
    pair: tuple[Device, Device],
) -> None:
    alice, bob = pair
    envelopes = []
    for number in range(20):
        envelopes.append(alice.encrypt(bob, f"{number}"))
        alice.world.wait(MINUTE_MS)
    Random(3).shuffle(envelopes)
    for envelope in envelopes:
        bob.receive(envelope)
    assert page(bob, alice) == [f"{number}" for number in range(20)]


def test_an_answer_stands_after_its_question_although_the_clocks_are_apart() -> None:
    world = World()
    slow, bob = world.device("slow", one_time_prekeys=False, skew=-HOUR_MS), world.device("bob", one_time_prekeys=False)
    talk(slow, bob)
    for device in (slow, bob):
        device.messenger.history.set_retention(FOREVER)
    expected = []
    for number in range(4):
        for sender, recipient, what in ((bob, slow, "question"), (slow, bob, "answer")):
            world.wait(1000)
            recipient.receive(sender.encrypt(recipient, f"{what} {number}"))
            expected.append(f"{what} {number}")
    assert page(bob, slow) == page(slow, bob) == expected


def test_a_claim_of_the_future_does_not_push_later_messages_back(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.receive(say(alice, bob, "from the year 2100", sent_at=START + 75 * 365 * DAY_MS))
    for number in range(3):
        alice.world.wait(1000)
        bob.receive(say(alice, bob, f"{number}"))
    assert page(bob, alice) == ["from the year 2100", "0", "1", "2"]


def test_our_own_clock_may_be_set_back_without_disorder(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.receive(alice.encrypt(bob, "before"))
    alice.world.now -= DAY_MS
    bob.receive(say(alice, bob, "after", sent_at=START + 1))
    assert page(bob, alice) == ["before", "after"]


def test_pages_join_without_gaps_and_doubles(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    for number in range(25):
        bob.receive(alice.encrypt(bob, f"{number}"))
    seen: list[HistoryEntry] = []
    before = None
    while got := bob.messenger.history.messages(alice.user_id, before=before, limit=7):
        seen = got + seen
        before = got[0].position
    assert texts(seen) == [f"{number}" for number in range(25)]


def test_a_search_by_time_finds_what_came_in_between(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    for day in range(5):
        bob.receive(alice.encrypt(bob, f"day {day}"))
        alice.world.wait(DAY_MS)
    search = bob.messenger.history.search
    within = {"since": START + DAY_MS, "until": START + 3 * DAY_MS}
    assert texts(search(alice.user_id, **within)) == ["day 1", "day 2"]  # type: ignore[arg-type]
    assert texts(search(alice.user_id, since=START + 4 * DAY_MS)) == ["day 4"]
    assert texts(search(alice.user_id, until=START)) == []
    assert texts(search(alice.user_id, since=0, limit=2)) == ["day 0", "day 1"]


def test_conversations_show_the_newest_message_and_how_many_are_unread(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    for sender, text in ((alice, "a"), (carol, "b"), (carol, "c"), (alice, "d")):
        alice.world.wait(1)
        bob.receive(sender.encrypt(bob, text))
    alice.world.wait(1)
    bob.encrypt(carol, "e")
    listed = bob.messenger.history.conversations()
    assert [(each.peer, each.unread) for each in listed] == [("carol", 3), ("alice", 2)]
    assert [each.last.data for each in listed if each.last] == ["e", "d"]


def test_what_changed_is_told_once_and_nothing_else_is(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    history = bob.messenger.history
    assert history.changed_after(0) == []
    for text in ("a", "b"):
        bob.receive(alice.encrypt(bob, text))
    [changed] = history.changed_after(0)
    assert changed.last is not None
    assert (changed.peer, changed.unread, changed.last.data) == ("alice", 2, "b")
    assert history.changed_after(changed.change) == []
    history.delete_conversation(alice.user_id)
    [emptied] = history.changed_after(changed.change)
    assert (emptied.peer, emptied.last, emptied.unread) == ("alice", None, 0)
    assert history.conversations() == []


def test_a_receipt_counts_for_messages_that_its_sender_was_sent_and_only_forwards(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, alice)
    alice.encrypt(bob, "to bob")
    [entry] = alice.messenger.history.messages(bob.user_id)

    def receive(sender: Device, kind: ReceiptType) -> EntryState:
        body = Receipt(kind, (entry.message_id,)).encode()
        content = content_from(sender, alice, kind=ContentKind.RECEIPT, body=body)
        alice.receive(sender.seal(alice, content.encode()))
        return alice.messenger.history.messages(bob.user_id)[0].state

    assert entry.state is EntryState.NEW
    assert receive(carol, ReceiptType.READ) is EntryState.NEW
    assert receive(bob, ReceiptType.DELIVERED) is EntryState.DELIVERED
    assert receive(bob, ReceiptType.READ) is EntryState.READ
    assert receive(bob, ReceiptType.DELIVERED) is EntryState.READ


def test_words_about_messages_that_never_come_are_bounded_for_each_peer_and_forgotten(
    pair: tuple[Device, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user who says that thousands of messages were read does not push out what others say."""
    monkeypatch.setattr("e2ee.stores.history_records._MAX_EARLY", 300)
    alice, bob = pair
    mallory = alice.world.device("mallory", one_time_prekeys=False)
    talk(mallory, alice)

    def say(sender: Device, *numbers: int) -> None:
        for number in numbers:
            ids = tuple(MessageId(bytes((number,)) * 15 + bytes((each,))) for each in range(256))
            body = Receipt(ReceiptType.READ, ids).encode()
            content = content_from(sender, alice, kind=ContentKind.RECEIPT, body=body)
            alice.receive(sender.seal(alice, content.encode()))

    say(bob, 0)
    say(mallory, 1, 2, 3, 4)
    kept = alice.snapshot()[Table.EARLY_WORDS]
    assert {user: [each.group for each in kept].count(user) for user in (b"bob", b"mallory")} == {
        b"bob": 256,
        b"mallory": 300,
    }
    assert [each.peer for each in alice.messenger.history.conversations() if each.last is not None] == [mallory.user_id]
    alice.world.wait(LATE_ENVELOPE_MS + 1)
    alice.messenger.prune()
    assert alice.snapshot()[Table.EARLY_WORDS] == ()


def test_a_deleted_message_does_not_come_again(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    content = content_from(alice, bob, body=encode_application("gone")).encode()
    bob.receive(alice.seal(bob, content))
    bob.receive(alice.encrypt(bob, "stays"))
    history = bob.messenger.history
    gone = history.messages(alice.user_id)[0]
    assert history.delete_message(gone.author, gone.message_id)
    assert not history.delete_message(gone.author, gone.message_id)
    bob.receive(alice.seal(bob, content))
    assert page(bob, alice) == ["stays"]
    assert history.conversations()[0].unread == 1


def test_retention_deletes_what_is_older_and_keeps_the_counts_right(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.messenger.history.set_retention(3 * DAY_MS)
    for day in range(5):
        bob.receive(alice.encrypt(bob, f"day {day}"))
        alice.world.wait(DAY_MS)
    bob.messenger.outbox.expire()
    assert page(bob, alice) == ["day 2", "day 3", "day 4"]
    assert bob.messenger.history.conversations()[0].unread == 3
    alice.world.wait(10 * DAY_MS)
    bob.messenger.prune()
    assert page(bob, alice) == []
    assert bob.messenger.history.conversations() == []


def test_to_stop_keeping_deletes_everything(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    for number in range(150):
        bob.receive(alice.encrypt(bob, f"{number}"))
    bob.messenger.history.set_retention(0)
    bob.receive(alice.encrypt(bob, "not kept"))
    assert bob.snapshot()[Table.HISTORY] == ()


def test_a_refused_envelope_and_a_failed_send_leave_no_trace_in_the_history(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    envelope = alice.encrypt(bob, "x")
    with unchanged(bob, Table.UNREADABLE):
        bob.receive(envelope[:-1] + bytes((envelope[-1] ^ 1,)))
    with unchanged(alice), pytest.raises(ValueError):
        alice.messenger.send(bob.user_id, "x" * 70_000)


def test_an_unknown_kind_is_kept_without_data_and_a_receipt_is_no_message(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.receive(alice.seal(bob, content_from(alice, bob, kind=200, body=b"?").encode()))
    receipt = Receipt(ReceiptType.READ, (MessageId(bytes(16)),)).encode()
    bob.receive(alice.seal(bob, content_from(alice, bob, kind=ContentKind.RECEIPT, body=receipt).encode()))
    [entry] = bob.messenger.history.messages(alice.user_id)
    assert (entry.kind, entry.data) == (200, None)


def test_a_record_that_does_not_decode_is_named_and_not_guessed(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.receive(alice.encrypt(bob, "x"))
    [stored] = bob.snapshot()[Table.HISTORY]
    for value in (b"\x02" + stored.value[1:], stored.value[:-1], stored.value + b"x", b"\x01"):
        with bob.store.write() as tx:
            tx.put(Table.HISTORY, stored.key, value, group=stored.group, order=stored.order)
        with pytest.raises(CorruptStateError):
            bob.messenger.history.messages(alice.user_id)


def test_no_repr_shows_what_was_said(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    bob.receive(alice.encrypt(bob, "for nobody else"))
    shown = repr(bob.messenger.history.conversations()) + repr(bob.messenger.history.messages(alice.user_id))
    assert "for nobody else" not in shown
