"""How a call goes: states, steps, and which step leads where.

Owns: the table. What is not in it is refused (our own step) or means nothing any more (the other's).
Does not know about: signals, timers, devices.

    the caller's device:    CALLING ──accept──> ACTIVE ──hang up──> ENDED
    each called device:     RINGING ──we accept──> CONNECTING ──ours counts──> ACTIVE ──hang up──> ENDED

The calling device is the judge of who answered: two devices that accept at once both wait for its word.
"""

from enum import Enum, StrEnum
from typing import Final, NamedTuple, final


@final
class CallState(StrEnum):
    """Where one device stands in one call."""

    CALLING = "calling"
    """We rang; nobody has answered."""
    RINGING = "ringing"
    """They rang; we have not answered."""
    CONNECTING = "connecting"
    """We accepted; the caller has not said yet that our answer counts."""
    ACTIVE = "active"
    ENDED = "ended"


@final
class CallEnd(StrEnum):
    """Why a call is over."""

    HUNG_UP = "hung up"
    CANCELLED = "cancelled"
    """We gave up before anybody answered."""
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    MISSED = "missed"
    ANSWERED_ELSEWHERE = "answered elsewhere"
    """Another device of ours accepted or declined."""
    GLARE = "glare"
    """Both called at once: the other call goes on, and rings here."""
    FAILED = "failed"
    """We accepted, and heard nothing any more."""


@final
class Step(Enum):
    """What happens to a call. WE_ is our application's wish, THEY_ a signal of the other end."""

    WE_ACCEPT = "we accept"
    WE_DECLINE = "we decline"
    WE_HANG_UP = "we hang up"
    THEY_ACCEPT = "they accept"
    THEY_DECLINE = "they decline"
    THEY_HANG_UP = "they hang up"
    OUR_ANSWER_COUNTS = "our answer counts"
    ANOTHERS_ANSWER_COUNTS = "another's answer counts"
    TIME_IS_UP = "time is up"
    THEIR_CALL_WINS = "their call wins"


class Outcome(NamedTuple):
    """Where a step leads; `end` says why, if it ends the call."""

    state: CallState
    end: CallEnd | None = None


def _ended(end: CallEnd) -> Outcome:
    return Outcome(CallState.ENDED, end)


TRANSITIONS: Final[dict[tuple[CallState, Step], Outcome]] = {
    (CallState.CALLING, Step.THEY_ACCEPT): Outcome(CallState.ACTIVE),
    (CallState.CALLING, Step.THEY_DECLINE): _ended(CallEnd.DECLINED),
    (CallState.CALLING, Step.WE_HANG_UP): _ended(CallEnd.CANCELLED),
    (CallState.CALLING, Step.TIME_IS_UP): _ended(CallEnd.UNANSWERED),
    (CallState.CALLING, Step.THEIR_CALL_WINS): _ended(CallEnd.GLARE),
    (CallState.RINGING, Step.WE_ACCEPT): Outcome(CallState.CONNECTING),
    (CallState.RINGING, Step.WE_DECLINE): _ended(CallEnd.DECLINED),
    (CallState.RINGING, Step.THEY_HANG_UP): _ended(CallEnd.MISSED),
    (CallState.RINGING, Step.ANOTHERS_ANSWER_COUNTS): _ended(CallEnd.ANSWERED_ELSEWHERE),
    (CallState.RINGING, Step.TIME_IS_UP): _ended(CallEnd.MISSED),
    (CallState.CONNECTING, Step.OUR_ANSWER_COUNTS): Outcome(CallState.ACTIVE),
    (CallState.CONNECTING, Step.ANOTHERS_ANSWER_COUNTS): _ended(CallEnd.ANSWERED_ELSEWHERE),
    (CallState.CONNECTING, Step.WE_HANG_UP): _ended(CallEnd.HUNG_UP),
    (CallState.CONNECTING, Step.THEY_HANG_UP): _ended(CallEnd.HUNG_UP),
    (CallState.CONNECTING, Step.TIME_IS_UP): _ended(CallEnd.FAILED),
    (CallState.ACTIVE, Step.WE_HANG_UP): _ended(CallEnd.HUNG_UP),
    (CallState.ACTIVE, Step.THEY_HANG_UP): _ended(CallEnd.HUNG_UP),
}
