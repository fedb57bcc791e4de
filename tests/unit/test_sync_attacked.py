"""What one of our own devices may claim in a sync: it adds to the history, and changes nothing that is there."""

import pytest

from e2ee.history_book import FOREVER, EntryState
from e2ee.messenger import Outcome
from e2ee.wire.content import ContentKind, encode_application
from e2ee.wire.identifiers import ConversationId, MessageId, UserId
from e2ee.wire.sync import ReadMarks, SentCopy
from tests.world import Device, World, content_from, talk


@pytest.fixture
def trio() -> tuple[Device, Device, Device]:
    world = World("sync")
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    laptop = world.further_device(phone)
    for device in (phone, laptop, bob):
        device.messenger.history.set_retention(FOREVER)
    talk(phone, laptop)
    talk(phone, bob)
    return phone, laptop, bob


def say(
    laptop: Device, phone: Device, body: bytes, message_id: MessageId | None = None, conversation: str = ""
) -> Outcome:
    fields: dict[str, object] = {} if message_id is None else {"message_id": message_id}
    named = ConversationId(conversation)
    said = content_from(laptop, phone, kind=ContentKind.SYNC, body=body, conversation_id=named, **fields)
    return phone.receive(laptop.seal(phone, said.encode())).outcome


def test_a_copy_under_the_id_of_a_message_that_is_there_changes_and_doubles_nothing(
    trio: tuple[Device, Device, Device],
) -> None:
    phone, laptop, bob = trio
    book = phone.messenger.history
    before = book.messages(bob.user_id)
    assert {entry.author for entry in before} == {"alice", "bob"}
    for entry in before:
        for peer, conversation in ((bob.user_id, ""), (bob.user_id, "other"), (phone.user_id, "")):
            copy = SentCopy(peer, ContentKind.APPLICATION, encode_application("never said")).encode()
            say(laptop, phone, copy, entry.message_id, conversation)
    after = book.messages(bob.user_id)
    assert [entry for entry in after if entry.data != "never said"] == before
    # Bob's message ids are not ours: a copy under one of them is a message of ours, once.
    assert [entry.author for entry in after if entry.data == "never said"] == ["alice"] * (
        sum(entry.author == "bob" for entry in before)
    )


@pytest.mark.parametrize("author", ["alice", "bob", "carol"])
def test_read_marks_advance_no_message_but_that_of_their_author_and_count_each_once(
    trio: tuple[Device, Device, Device], author: str
) -> None:
    phone, laptop, bob = trio
    book = phone.messenger.history
    before = book.messages(bob.user_id)
    ids = tuple(entry.message_id for entry in before)
    assert say(laptop, phone, ReadMarks(UserId(author), ids * 3).encode()) is Outcome.STORED
    for old, new in zip(before, book.messages(bob.user_id), strict=True):
        expected = EntryState.READ if old.author == author == "bob" else old.state
        assert new.state is expected
    [with_bob] = [each for each in book.conversations() if each.peer == "bob"]
    assert with_bob.unread == (0 if author == "bob" else sum(entry.author == "bob" for entry in before))


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 6, 7, 8, 9, 255])
def test_a_copy_of_another_kind_is_refused_and_the_session_goes_on(
    trio: tuple[Device, Device, Device], kind: int
) -> None:
    phone, laptop, bob = trio
    before = phone.messenger.history.messages(bob.user_id)
    inner = ReadMarks(bob.user_id, (MessageId(bytes(16)),)).encode()
    assert say(laptop, phone, SentCopy(bob.user_id, kind, inner).encode()) is Outcome.UNREADABLE
    assert phone.messenger.history.messages(bob.user_id) == before
    good = SentCopy(bob.user_id, ContentKind.APPLICATION, encode_application("said")).encode()
    assert say(laptop, phone, good) is Outcome.STORED
