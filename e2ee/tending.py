"""What a device does by itself: it asks again for what it could not read, sends again what others ask for, tells newly
linked devices of our contacts, starts sessions with other devices of ours, and answers post-quantum payloads when there
is nothing else to say.

Owns: the order of these things, and what they lack: a newer device list, a fresh session.
Does not know about: the network. The caller fetches what lacks, hands it in, and calls again.
"""

from dataclasses import dataclass
from enum import Enum
from typing import final

from e2ee import healing, rollback
from e2ee.errors import DeviceListForkError, DeviceListStaleError, TrustError
from e2ee.limits import (
    FRESH_SESSION_MS,
    MAX_TTL_SECONDS,
    MEET_OWN_DEVICE_MS,
    PQ_ANSWER_MS,
    SHORTEST_MEETING_PAUSE_MS,
)
from e2ee.notices import AskedAgain, ContactsTold, MessageNotResent, MessageResent, Notice, StoreRolledBack
from e2ee.ports import Transaction
from e2ee.sending import EMPTY, Draft, Repeated, Sender, queue_to, tell_contacts
from e2ee.stores import healing_records, sent_records, session_records, trust_records
from e2ee.stores.healing_records import Healing
from e2ee.stores.records import own_device_list
from e2ee.stores.sent_records import Resend
from e2ee.stores.session_records import Meeting
from e2ee.trust import is_stranger, sendable_contact
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, UserId

_NONE = ConversationId("")


@final
@dataclass(frozen=True, slots=True)
class Tended:
    """What was done, and what is lacking for the rest."""

    queued: int
    """Envelopes that were added to the outbox."""
    notices: tuple[Notice, ...]
    stale_lists: tuple[UserId, ...]
    """Fetch the device lists of these users and hand them in (`learn_device_lists`), then call again."""
    sessions_wanted: tuple[DeviceAddress, ...]
    """Claim a bundle of each of these devices and start a session (`start_session`), then call again."""
    again_in: int | None
    """After how many milliseconds something falls due by itself; None if nothing does."""

    @property
    def lacks(self) -> bool:
        """Whether there is something to fetch."""
        return bool(self.stale_lists or self.sessions_wanted)


class _Agenda:
    """Collects the outcome while the steps run."""

    def __init__(self) -> None:
        self.queued = 0
        self.notices: list[Notice] = []
        self.stale_lists: set[UserId] = set()
        self.sessions_wanted: set[DeviceAddress] = set()
        self._waits: list[int] = []

    def come_back(self, wait: int | None) -> None:
        """Call again after so many milliseconds."""
        if wait is not None:
            self._waits.append(wait)

    def finish(self) -> Tended:
        return Tended(
            queued=self.queued,
            notices=tuple(self.notices),
            stale_lists=tuple(sorted(self.stale_lists)),
            sessions_wanted=tuple(sorted(self.sessions_wanted)),
            again_in=min(self._waits, default=None),
        )


def tend(tx: Transaction, sender: Sender) -> Tended:
    """Do everything that is due and possible now."""
    agenda = _Agenda()
    if rollback.reset_if_due(tx, sender.now):
        agenda.notices.append(StoreRolledBack())
    agenda.come_back(rollback.reset_in(tx, sender.now))
    for each in healing_records.open_healings(tx):
        _heal(tx, sender, each, agenda)
    for resend in sent_records.due_resends(tx):
        _resend(tx, sender, resend, agenda)
    for device in trust_records.contacts_owed(tx):
        _tell_contacts(tx, sender, device, agenda)
    ours = own_device_list(tx).content.addresses()
    for device in ours:
        if sender.account.address in ours and device != sender.account.address:
            _meet(tx, sender, device, agenda)
    for session_id, since in session_records.owed_answers(tx):
        # Looked at last: what went out above on such a session was its answer.
        _answer(tx, sender, (session_id, since), agenda)
    return agenda.finish()


def _heal(tx: Transaction, sender: Sender, record: Healing, agenda: _Agenda) -> None:
    """Ask a device for what we could not read of it, or say that it takes a fresh session."""
    reach = _reach(tx, sender, record.peer, agenda)
    if reach is _Reach.NEVER:
        healing.give_up(tx, record, sender.now)
    if reach is not _Reach.NOW:
        return
    session = session_records.sending_session(tx, record.peer, sender.now)
    plan = healing.plan(record, session, sender.now)
    if plan.ask and session is not None:
        body = encode_retry_request(plan.ask)
        queue_to(tx, sender, session, Draft(ContentKind.RETRY_REQUEST, body, _NONE, Lane.CHAT, MAX_TTL_SECONDS))
        healing.note_asked(tx, record, session, sender.now)
        agenda.queued += 1
        agenda.notices.append(AskedAgain(record.peer, plan.ask))
    if plan.fresh_session:
        agenda.sessions_wanted.add(record.peer)
    agenda.come_back(plan.again_in)


def _resend(tx: Transaction, sender: Sender, resend: Resend, agenda: _Agenda) -> None:
    """Encrypt a message anew for one device, on the session that both ends send on now."""
    content, device = sent_records.sent_content(tx, resend.original), resend.recipient
    reach = _reach(tx, sender, device, agenda)
    if content is None or reach is _Reach.NEVER:
        sent_records.settle_resend(tx, resend, sender.now)
        agenda.notices.append(MessageNotResent(resend.message_id, device))
        return
    if reach is _Reach.LATER:
        return
    session = session_records.sending_session(tx, device, sender.now)
    if session is None and not healing_records.load_healing(tx, device).outranked:
        agenda.sessions_wanted.add(device)  # else `_heal` has said when: a peer that asks could cause one each time
    if session is None or device in agenda.sessions_wanted:
        return  # it goes out on the fresh session
    draft = Draft(content.kind, content.body, content.conversation_id, content.lane, content.ttl)
    queue_to(tx, sender, session, draft, Repeated(resend.message_id, content.sent_at, resend.original))
    sent_records.settle_resend(tx, resend, sender.now)
    agenda.queued += 1
    agenda.notices.append(MessageResent(resend.message_id, device))


def _tell_contacts(tx: Transaction, sender: Sender, device: DeviceAddress, agenda: _Agenda) -> None:
    """Tell a device that was linked to our account whom we know."""
    reach = _reach(tx, sender, device, agenda)
    session = None if reach is not _Reach.NOW else session_records.sending_session(tx, device, sender.now)
    if reach is _Reach.NOW and session is None:
        if not session_records.sessions_with(tx, device):
            _plan_meeting(tx, device, sender.now, sender.now)
        elif not healing_records.load_healing(tx, device).outranked:
            agenda.sessions_wanted.add(device)
    if session is not None and device not in agenda.sessions_wanted:
        agenda.queued += tell_contacts(tx, sender, session)
        trust_records.settle_contacts(tx, device)
        agenda.notices.append(ContactsTold(device))
    elif reach is _Reach.NEVER:
        trust_records.settle_contacts(tx, device)


def _meet(tx: Transaction, sender: Sender, device: DeviceAddress, agenda: _Agenda) -> None:
    """Have a session with each device of our own before there is anything to say, so that the first copy goes at once.

    The first message on it says nothing; without one the other device would not know of the session.
    """
    now = sender.now
    if session_records.sessions_with(tx, device):
        if session_records.meeting(tx, device) is not None:
            session_records.settle_meeting(tx, device)
            session = session_records.sending_session(tx, device, now)
            if session is not None and session.is_unused and _reach(tx, sender, device, agenda) is _Reach.NOW:
                queue_to(tx, sender, session, EMPTY)
                agenda.queued += 1
        return
    since, due = _plan_meeting(tx, device, now, now + MEET_OWN_DEVICE_MS)
    if due <= now:
        # Should it not come about: the other device may have no prekeys yet, or never again.
        due = now + min(max(now - since, SHORTEST_MEETING_PAUSE_MS), FRESH_SESSION_MS)
        if _reach(tx, sender, device, agenda) is _Reach.NOW:
            agenda.sessions_wanted.add(device)
            session_records.note_meeting(tx, device, Meeting(since, due))
    agenda.come_back(due - now)


def _plan_meeting(tx: Transaction, device: DeviceAddress, now: int, due: int) -> Meeting:
    """Return when a session with a device of ours is to be started; if that is not planned yet, when it is `due`."""
    planned = session_records.meeting(tx, device)
    # A clock that was set back does not put it off.
    if planned is None or planned.due - now > FRESH_SESSION_MS:
        planned = Meeting(due, due)
        session_records.note_meeting(tx, device, planned)
    return planned


def _answer(tx: Transaction, sender: Sender, owed: tuple[bytes, int], agenda: _Agenda) -> None:
    """Give the post-quantum ratchet a message to ride on when nothing else was sent (protocol.md section 7.3)."""
    session_id, since = owed
    # A clock that was set back does not make it longer.
    wait = since + PQ_ANSWER_MS - sender.now
    if 0 < wait <= PQ_ANSWER_MS:
        agenda.come_back(wait)
        return
    session = session_records.load_session(tx, session_id)
    chosen = session_records.sending_session(tx, session.peer, sender.now) if session else None
    reach = _Reach.NEVER
    if chosen and chosen.session_id == session_id:
        reach = _reach(tx, sender, chosen.peer, agenda)
    if reach is _Reach.NEVER:
        session_records.settle_answer(tx, session_id)
    elif reach is _Reach.NOW and chosen is not None:
        queue_to(tx, sender, chosen, EMPTY)
        agenda.queued += 1


@final
class _Reach(Enum):
    """Whether anything may be encrypted to a device."""

    NOW = 1
    LATER = 2
    """Its user's list must be fetched, or a human must look, or we never wrote to the user."""
    NEVER = 3
    """It has left its user's list."""


def _reach(tx: Transaction, sender: Sender, device: DeviceAddress, agenda: _Agenda) -> _Reach:
    try:
        contact = sendable_contact(tx, device.user_id, sender.now)
    except DeviceListStaleError:
        agenda.stale_lists.add(device.user_id)
        return _Reach.LATER
    except (DeviceListForkError, TrustError):
        return _Reach.LATER
    devices = contact.device_list.content.addresses()
    if device not in devices:
        return _Reach.NEVER
    if device.user_id == sender.account.address.user_id:
        return _Reach.NOW
    # Whoever writes to us must not learn from what we do by ourselves that we are there.
    return _Reach.LATER if is_stranger(tx, contact) else _Reach.NOW
