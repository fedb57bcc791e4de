"""Cases of limits.json: what goes for number or age. The numbers are this package's own (protocol.md section 11)."""

from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from e2ee.cli.vectors.cases.mutations import invalid, valid
from e2ee.cli.vectors.cases.people import NOW, person
from e2ee.cli.vectors.cases.story import WEEKS, Story
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations.scripts import CONVERSATION, RECEPTION
from e2ee.cli.vectors.script import Script
from e2ee.limits import (
    DAY_MS,
    LATE_ENVELOPE_MS,
    MAX_SESSIONS_PER_DEVICE,
    MAX_SKIP,
    SECOND_MS,
    SKIPPED_KEY_LIFETIME_MS,
    UNANSWERED_SESSION_MS,
)
from e2ee.ratchet import triple_ratchet
from e2ee.wire.content import Content, ContentKind
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, EnvelopeId, MessageId
from e2ee.wire.padding import pad

ALICE: Final = person("alice")
BOB: Final = person("bob")


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(RECEPTION, "20 sessions with one device", tuple(_number_of_sessions()))
    yield CaseGroup(CONVERSATION, "sessions that grow old", tuple(_age_of_sessions()))
    yield CaseGroup(RECEPTION, "2,000 skipped keys for 7 days", tuple(_skipped_keys()))


# --- sessions ------------------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """A session that alice started: its id and her first two messages, both with the handshake."""

    session_id: bytes
    first: bytes
    second: bytes


def _opened(name: str, created: int) -> _Opened:
    story = Story(f"limits: session {name}", ALICE, BOB)
    story.start(ALICE, BOB, one_time=False, last_resort=True, time=created, created=created)
    first, second = story.send(ALICE, BOB), story.send(ALICE, BOB)
    return _Opened(story.session(ALICE, BOB).session_id, story.envelope(first), story.envelope(second))


def _number_of_sessions() -> Iterator[Case]:
    lowest, *others = (_opened(str(number), NOW + number) for number in range(MAX_SESSIONS_PER_DEVICE + 1))

    def case(last: bytes, *sessions: _Opened) -> JsonObject:
        return Story("limits", ALICE, BOB).reception(BOB, *(each.first for each in sessions), last)

    gone = case(lowest.second, lowest, *others)
    yield invalid("the lowest of 21 sessions has gone", "replay", gone, "SessionLimit", "Replay")
    kept = case(others[0].second, *others, lowest)
    yield valid("the 21st session is the lowest: its message is delivered, the others stay", kept, "SessionLimit")
    gone = case(lowest.second, *others, lowest)
    yield invalid("the 21st session is the lowest: it has gone at once", "replay", gone, "SessionLimit", "Replay")
    equal = _opened("equal", NOW)
    lower, higher = sorted((lowest, equal))
    gone = case(lower.second, higher, lower, *others[1:])
    comment = "the lowest two of 21 have the same created: the one with the lower T has gone, although it came later"
    yield invalid(comment, "replay", gone, "SessionLimit", "SessionOrder", "Replay")


def _age_of_sessions() -> Iterator[Case]:
    yield valid("a session that was never answered sends for 30 days", _unanswered(), "SessionLimit")
    yield valid("a session goes 45 days after a higher one took over", _superseded(), "SessionLimit")


def _unanswered() -> JsonObject:
    story = Story("limits: unanswered", ALICE, BOB)
    started = NOW + DAY_MS
    story.start(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    story.pass_on(ALICE, BOB)
    story.start(ALICE, BOB, last_resort=True, number=1, time=started, created=started)
    story.send(ALICE, BOB, time=started + UNANSWERED_SESSION_MS)
    story.send(ALICE, BOB, time=started + UNANSWERED_SESSION_MS + 1)
    return story.conversation()


def _superseded() -> JsonObject:
    story = Story("limits: superseded", ALICE, BOB)
    story.start(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    late = story.send(ALICE, BOB)
    story.start(ALICE, BOB, last_resort=True, number=1)
    took_over = NOW + DAY_MS
    story.step("deliver", BOB, envelope_of=story.send(ALICE, BOB), time=took_over)
    for more in (-SECOND_MS, SECOND_MS):
        story.step("prune", BOB, peer=ALICE.user_id, time=took_over + LATE_ENVELOPE_MS + more)
    story.step("deliver", BOB, envelope_of=late, time=took_over + LATE_ENVELOPE_MS + DAY_MS)
    return story.conversation()


# --- skipped keys --------------------------------------------------------------------------------------------

_Step = tuple[int, int | str]
"""Milliseconds after the story, and the index of the message that arrives, or `"prune"`."""


def _skipped_keys() -> Iterator[Case]:
    week, half = SKIPPED_KEY_LIFETIME_MS, MAX_SKIP + 1
    full: tuple[_Step, ...] = ((0, half - 1), (1, 2 * half - 1))
    all_kept = _skipping(*full, (2, "prune"), (3, 0))
    yield valid("2,000 keys are kept", all_kept, "SkippedKeyLimit", "Skipped")
    one_more = _skipping(*full, (2, 2 * half + 1), (3, "prune"), (4, 0))
    yield invalid("of 2,001 keys the oldest is dropped", "limit", one_more, "SkippedKeyLimit", "Skipped")
    young = _skipping((0, 2), (week, "prune"), (week, 0))
    yield valid("a key is kept for 7 days", young, "SkippedKeyLimit", "Skipped")
    old = _skipping((0, 2), (week + 1, "prune"), (week + 2, 0))
    yield invalid("a key is dropped after 7 days", "limit", old, "SkippedKeyLimit", "Skipped")
    waiting = _skipping((0, 2), (2 * week, 0))
    yield valid("a key grows old while the inbox is not drained: it is used", waiting, "SkippedKeyLimit", "Skipped")
    younger = _skipping((0, 1), (week - 1, 3), (week + 1, "prune"), (week + 2, 2))
    yield valid("each key has an age of its own", younger, "SkippedKeyLimit", "Skipped")


def _skipping(*steps: _Step) -> JsonObject:
    """Return the case of bob, who answered and now gets messages of alice's next chain."""
    story, messages = _far_ahead()
    case = story.reception(BOB)
    begun = NOW + DAY_MS

    def step(after: int, what: int | str) -> JsonObject:
        common = {"device": BOB.user_id, "time": begun + after}
        if isinstance(what, int):
            return {"step": "receive", **common, "envelope": messages[what].hex()}
        return {"step": what, **common, "peer": ALICE.user_id}

    return {**case, "steps": [*case["steps"], *(step(*each) for each in steps)]}


@cache
def _far_ahead() -> tuple[Story, list[bytes]]:
    """Return a story in which bob sent last, and all envelopes of alice's next chain that a case needs."""
    story = Story("limits: skipped keys", ALICE, BOB)
    story.start(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    session = story.session(ALICE, BOB)
    (double, pq, receives), envelopes = session.state, []
    for index in range(2 * MAX_SKIP + 4):
        turn = _drawn("ratchet key", index, 32) if index == 0 else None
        # She forgets that she sent so many: what is shown here needs no post-quantum proposals in between.
        state = double, pq._replace(sent=0), receives
        script = Script(turn, _drawn("nonce", index, 12))
        (double, pq, _), message = triple_ratchet.encrypt(state, session.session_id, _content(index), NOW, script)
        envelope_id = EnvelopeId(_drawn("envelope id", index, 16))
        envelope = Envelope(envelope_id, ALICE.address, BOB.address, Lane.CHAT, WEEKS, message)
        envelopes.append(envelope.encode())
    return story, envelopes


def _content(index: int) -> bytes:
    content = Content(
        message_id=MessageId(_drawn("message id", index, 16)),
        kind=ContentKind.APPLICATION,
        conversation_id=ConversationId(""),
        sent_at=NOW,
        sender_list=ALICE.device_list().position,
        recipient_list=BOB.device_list().position,
        body=f"\1number {index}".encode(),
        device_list=None,
    )
    return pad(content.encode())


def _drawn(what: str, index: int, length: int) -> bytes:
    return drawn(f"limits: {what} {index}", length)
