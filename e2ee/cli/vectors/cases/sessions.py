"""Cases of sessions.json: several sessions of one pair of devices."""

from collections.abc import Iterator
from itertools import count
from typing import Final

from e2ee.cli.vectors.cases.mutations import valid
from e2ee.cli.vectors.cases.people import NOW, person
from e2ee.cli.vectors.cases.story import Story
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations.scripts import CONVERSATION
from e2ee.limits import DAY_MS

ALICE: Final = person("alice")
BOB: Final = person("bob")


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(CONVERSATION, "both start before they hear of each other", tuple(_simultaneous()))
    yield CaseGroup(CONVERSATION, "one after another", tuple(_successive()))


def _simultaneous() -> Iterator[Case]:
    def converging(comment: str, story: Story) -> Case:
        return valid(comment, _converging(story), "SimultaneousStart", "SessionOrder")

    yield converging("the later session wins", _both_start("simultaneous", NOW, NOW + 1))
    yield converging("the clock of the later one to start is behind", _both_start("clock behind", NOW, NOW - DAY_MS))
    yield converging("the same created; the first to start has the higher T", _equal_created(first_wins=True))
    yield converging("the same created; the second to start has the higher T", _equal_created(first_wins=False))


def _both_start(name: str, alices: int, bobs: int) -> Story:
    """Let alice start at one time and then bob at another; `created` is the clock of who starts."""
    story = Story(name, ALICE, BOB)
    story.start(ALICE, BOB, time=alices, created=alices)
    story.start(BOB, ALICE, time=bobs, created=bobs)
    return story


def _equal_created(*, first_wins: bool) -> Story:
    """Of the stories that differ in their keys alone, return the first that fits."""
    stories = (_both_start(f"equal created {number}", NOW, NOW) for number in count())
    return next(story for story in stories if (_id_of(story, first=True) > _id_of(story, first=False)) is first_wins)


def _id_of(story: Story, *, first: bool) -> bytes:
    return (story.session(ALICE, BOB) if first else story.session(BOB, ALICE)).session_id


def _converging(story: Story) -> JsonObject:
    ours, theirs = story.send(ALICE, BOB), story.send(BOB, ALICE)
    story.deliver(ALICE, theirs)
    story.deliver(BOB, ours)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    story.pass_on(ALICE, BOB)
    return story.conversation()


def _successive() -> Iterator[Case]:
    yield valid("a second session takes over, the first one still receives", _second_session(), "Normal")
    ahead = "a session made by a clock that is ahead: the next one's created is one above"
    yield valid(ahead, _clock_ahead(), "SessionOrder")
    yield valid("a first message without one-time prekeys returns when its session is gone", _returned(False), "Replay")
    yield valid("a first message with one-time prekeys returns when its session is gone", _returned(True), "Replay")


def _clock_ahead() -> JsonObject:
    ahead = NOW + DAY_MS
    story = Story("clock ahead", ALICE, BOB)
    story.start(BOB, ALICE, time=ahead, created=ahead)
    story.pass_on(BOB, ALICE)
    story.start(ALICE, BOB, created=ahead + 1)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    return story.conversation()


def _second_session() -> JsonObject:
    story = Story("second session", ALICE, BOB)
    story.start(ALICE, BOB)
    story.pass_on(ALICE, BOB)
    story.pass_on(BOB, ALICE)
    late = story.send(ALICE, BOB)
    lost = story.send(BOB, ALICE)
    story.start(ALICE, BOB, last_resort=True, number=1)
    story.pass_on(ALICE, BOB)
    story.deliver(BOB, late)
    story.pass_on(BOB, ALICE)
    story.deliver(ALICE, lost)
    story.pass_on(ALICE, BOB)
    return story.conversation()


def _returned(one_time: bool) -> JsonObject:
    story = Story(f"returned {one_time}", ALICE, BOB)
    story.start(ALICE, BOB, one_time=one_time, last_resort=True)
    first = story.send(ALICE, BOB)
    story.deliver(BOB, first)
    story.start(ALICE, BOB, one_time=False, last_resort=True, number=1)
    second = story.send(ALICE, BOB)
    story.deliver(BOB, second, first)
    later = NOW + 46 * DAY_MS
    story.step("prune", BOB, peer=ALICE.user_id, time=later)
    story.step("deliver", BOB, envelope_of=first, time=later + 1)
    story.step("deliver", BOB, envelope_of=second, time=later + 2)
    return story.conversation()
