"""Cases of conversation.json."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.mutations import valid
from e2ee.cli.vectors.cases.people import person
from e2ee.cli.vectors.cases.story import Story
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations.scripts import CONVERSATION
from e2ee.limits import DAY_MS
from e2ee.wire.content import ContentKind

ALICE: Final = person("alice")
BOB: Final = person("bob")
_PREKEY_BODY: Final = 68
"""Offset of the body in an envelope from alice to bob; three bytes user id or five, so the same both ways."""
_RATCHET_MESSAGE: Final = _PREKEY_BODY + 1719 + 4


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(CONVERSATION, "how sessions begin", tuple(_beginnings()))
    yield CaseGroup(CONVERSATION, "what the network does to them", tuple(_networks()))
    yield CaseGroup(CONVERSATION, "what is said", tuple(_contents()))


def _story(name: str, *, one_time: bool = True, last_resort: bool = False) -> Story:
    story = Story(name, ALICE, BOB)
    story.start(ALICE, BOB, one_time=one_time, last_resort=last_resort)
    return story


def _beginnings() -> Iterator[Case]:
    for comment, one_time, last_resort, flags in (
        ("hello and an answer, with one-time prekeys", True, False, ("Normal",)),
        ("without a one-time X25519 prekey", False, False, ("NoOneTimePreKey",)),
        ("with the last-resort KEM prekey", True, True, ("LastResort",)),
        ("without any one-time prekey", False, True, ("NoOneTimePreKey", "LastResort")),
    ):
        story = _story(comment, one_time=one_time, last_resort=last_resort)
        story.pass_on(ALICE, BOB)
        story.pass_on(BOB, ALICE)
        story.pass_on(ALICE, BOB)
        yield valid(comment, story.conversation(), *flags)
    yield valid("four first messages before the answer", _unanswered(), "Skipped", "Replay")
    yield valid("the first message is lost, the second starts the session", _first_lost(), "Skipped")


def _unanswered() -> JsonObject:
    story = _story("unanswered")
    first, second, third, fourth = (story.send(ALICE, BOB) for _ in range(4))
    story.deliver(BOB, third, first, first, fourth)
    answer = story.send(BOB, ALICE)
    story.deliver(BOB, second, second)
    story.deliver(ALICE, answer)
    story.pass_on(ALICE, BOB)
    return story.conversation()


def _first_lost() -> JsonObject:
    story = _story("first lost")
    story.send(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE, 2)
    story.pass_on(ALICE, BOB)
    return story.conversation()


def _networks() -> Iterator[Case]:
    story = _story("ping-pong")
    for _ in range(5):
        story.pass_on(ALICE, BOB)
        story.pass_on(BOB, ALICE)
    yield valid("ping-pong: every message turns the ratchet", story.conversation(), "Turn")
    story = _story("runs")
    for count in (3, 1, 4):
        story.pass_on(ALICE, BOB, count)
        story.pass_on(BOB, ALICE, count - 1)
    yield valid("runs of messages in both directions", story.conversation(), "Turn")
    yield valid("loss and reordering over several turns", _reordered(), "Skipped", "Turn")
    yield valid("both send at the same time", _crossing(), "Skipped", "Turn")
    yield valid("everything is delivered twice", _twice(), "Replay")
    yield valid("changed copies arrive first", _changed(), "Tampered")
    yield valid("post-quantum epochs, one a day", _days(), "Epoch", "Skipped")


def _reordered() -> JsonObject:
    story = _story("reordered")
    one, two, three = (story.send(ALICE, BOB) for _ in range(3))
    story.deliver(BOB, two)
    answers = [story.send(BOB, ALICE) for _ in range(3)]
    story.deliver(ALICE, answers[2])
    four, five = story.send(ALICE, BOB), story.send(ALICE, BOB)
    story.deliver(BOB, five)
    story.pass_on(BOB, ALICE)
    six = story.send(ALICE, BOB)
    story.deliver(BOB, three, six, one)
    story.deliver(ALICE, answers[0])  # the second answer never arrives
    story.deliver(BOB, four)
    story.pass_on(BOB, ALICE)
    return story.conversation()


def _crossing() -> JsonObject:
    story = _story("crossing")
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    for _ in range(3):
        ours, theirs = story.send(ALICE, BOB), story.send(BOB, ALICE)
        second = story.send(ALICE, BOB)
        story.deliver(ALICE, theirs)
        story.deliver(BOB, second, ours)
    return story.conversation()


def _twice() -> JsonObject:
    story = _story("twice")
    sent: list[int] = []
    for who, peer in ((ALICE, BOB), (BOB, ALICE), (ALICE, BOB), (BOB, ALICE)):
        number = story.send(who, peer)
        story.deliver(peer, number, number)
        sent.append(number)
    story.deliver(BOB, sent[0], sent[2])
    story.deliver(ALICE, sent[1])
    return story.conversation()


def _days() -> JsonObject:
    story = _story("days")
    for _ in range(2):
        story.pass_on(ALICE, BOB)
        story.pass_on(BOB, ALICE)
        story.wait(DAY_MS)
    late = story.send(ALICE, BOB)
    for _ in range(2):
        story.pass_on(ALICE, BOB)
        story.pass_on(BOB, ALICE)
    story.deliver(BOB, late)
    return story.conversation()


def _changed() -> JsonObject:
    story = _story("changed")
    first = story.send(ALICE, BOB)
    header = _PREKEY_BODY
    for offset in (
        20,  # the sender's user id
        header + 2,  # account key
        header + 34,  # device signing key
        header + 66,  # identity key
        header + 105,  # created
        header + 106,  # ephemeral key
        header + 141,  # signed prekey id: unknown
        header + 151,  # KEM ciphertext
        _RATCHET_MESSAGE + 2,  # ratchet key
        _RATCHET_MESSAGE + 53,  # commitment
        _RATCHET_MESSAGE + 85,  # nonce
        len(story.envelope(first)) - 1,  # tag
    ):
        story.deliver_changed(BOB, first, offset)
    story.deliver(BOB, first)
    answer = story.send(BOB, ALICE)
    for offset in (header + 2, header + 37, header + 40, header + 53, header + 97):
        story.deliver_changed(ALICE, answer, offset)
    story.deliver(ALICE, answer)
    story.pass_on(ALICE, BOB)
    return story.conversation()


def _contents() -> Iterator[Case]:
    story = _story("sizes")
    for length in (0, 20, 133, 134, 135, 150, 700):
        body = b"\0" + drawn(f"sizes: {length}", length)
        story.deliver(BOB, story.send(ALICE, BOB, body))
        if length == 0:
            story.pass_on(BOB, ALICE)
    yield valid("contents around the smallest padded length", story.conversation(), "Boundary")
    story = _story("kinds")
    message_id = drawn("kinds: message", 16)
    first = story.send(
        ALICE, BOB, "\1gr\u00fc\u00df dich".encode(), message_id=message_id.hex(), conversation_id="team-7"
    )
    story.deliver(BOB, first)
    receipt = b"\2\0\1" + message_id
    story.deliver(ALICE, story.send(BOB, ALICE, receipt, ContentKind.RECEIPT, lane=2, ttl=3_600))
    story.deliver(BOB, story.send(ALICE, BOB, b"x", ContentKind.EMPTY, lane=0, ttl=1))
    story.deliver(BOB, story.send(ALICE, BOB, b"from a later release", 200, lane=3))
    story.deliver(BOB, story.send(ALICE, BOB, b"\1the same message id", message_id=message_id.hex()))
    story.deliver(BOB, story.send(ALICE, BOB, drawn("kinds: missed call", 16) + b"\6", ContentKind.CALL))
    yield valid(
        "receipt, empty, an unknown kind, a message id for the second time, a missed call",
        story.conversation(),
        "UnknownKind",
    )
    yield valid("kinds that are accepted and from which nothing follows", _consumed_kinds(), "NothingFollows")
    yield valid("kinds around the known ones are stored as unsupported", _unknown_kinds(), "UnknownKind")


def _consumed_kinds() -> JsonObject:
    """Nobody sent the envelopes that are asked for, and bodies without a layout are arbitrary."""
    story = _story("consumed kinds")
    retry_request = b"\0\2" + drawn("consumed kinds: envelope ids", 32)
    story.deliver(BOB, story.send(ALICE, BOB, retry_request, ContentKind.RETRY_REQUEST))
    call_id = drawn("consumed kinds: call", 16)
    story.deliver(BOB, story.send(ALICE, BOB, call_id + b"\1an offer", ContentKind.CALL, lane=0, ttl=60))
    story.deliver(ALICE, story.send(BOB, ALICE, call_id + b"\2an answer", ContentKind.CALL, lane=0, ttl=60))
    for kind in (ContentKind.EMPTY, ContentKind.SESSION_RESET):
        story.deliver(BOB, story.send(ALICE, BOB, drawn(f"consumed kinds: body {kind}", 40), kind))
        story.deliver(BOB, story.send(ALICE, BOB, b"", kind))
        story.deliver(ALICE, story.send(BOB, ALICE, b"\xff", kind))
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    return story.conversation()


def _unknown_kinds() -> JsonObject:
    story = _story("unknown kinds")
    for kind in (0, max(ContentKind) + 1, 255):
        story.deliver(BOB, story.send(ALICE, BOB, drawn(f"unknown kinds: body {kind}", 20), kind))
    story.pass_on(BOB, ALICE)
    return story.conversation()
