"""Messages that could not be read: when a fresh session is due, what is asked for, whose request is honoured.

Owns: the rules of protocol.md section 12.6, on both ends.
Does not know about: encryption, the network. What is due is decided here and done by tending.py.

The receiver of unreadable envelopes starts a fresh session, at most one per device and hour, and asks on it for what it
missed. The sender honours a request only on a session later than the one that carried the message, so that nobody who
holds the secrets of an older session can ask for anything.
"""

from typing import NamedTuple

from e2ee.errors import (
    AuthenticationError,
    E2EEError,
    EpochUnknownError,
    KeyEvictedError,
    ReplayedHandshakeError,
    SessionNotFoundError,
    TooManySkippedError,
    UnknownPreKeyError,
)
from e2ee.limits import FRESH_SESSION_MS, MAX_RETRY_ASKS, RETRY_REQUEST_MS
from e2ee.notices import MessageNotResent, Notice
from e2ee.ports import ReadTransaction, Transaction
from e2ee.session import Session
from e2ee.stores import message_records, session_records, trust_records
from e2ee.stores.healing_records import Healing, Wanted, load_healing, save_healing
from e2ee.stores.records import Contact, load_contact
from e2ee.stores.sent_records import request_resend, sent_envelope
from e2ee.wire.device_list import DeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId

_SESSION_LOSS = (
    AuthenticationError,
    EpochUnknownError,
    KeyEvictedError,
    ReplayedHandshakeError,
    SessionNotFoundError,
    TooManySkippedError,
    UnknownPreKeyError,
)
"""Errors of an envelope that its sender may well have encrypted rightly, on a session that is out of step here."""


# --- the receiver --------------------------------------------------------------------------------------------


def note_unreadable(tx: Transaction, envelope: Envelope, error: E2EEError, now: int) -> bool:
    """Note an envelope to ask for, if it is of a listed device of a pinned contact; return whether it is.

    Its sender field is a mere claim. Whoever forges it causes a session with a device that we talk to anyway, once an
    hour, and a question that this device does not understand.
    """
    peer = envelope.sender
    if not isinstance(error, _SESSION_LOSS) or not _is_listed(load_contact(tx, peer.user_id), peer):
        return False
    healing = load_healing(tx, peer)
    save_healing(tx, healing.want(envelope.envelope_id, _latest_counted(tx, peer, now)), now)
    return True


class Plan(NamedTuple):
    """What a device's record calls for now."""

    ask: tuple[EnvelopeId, ...]
    """To be named in a retry request on the sending session."""
    fresh_session: bool
    again_in: int | None
    """After how many milliseconds more of it falls due; None if nothing does by itself."""


def plan(healing: Healing, sending_session: Session | None, now: int) -> Plan:
    """Decide what is due for a device."""
    established_at = sending_session.origin.established_at if sending_session else 0
    ask = tuple(each.envelope_id for each in healing.wanted if each.after < established_at)
    # What was asked for once waits for a session that comes to be for another reason.
    unasked = any(each.asks == 0 and each.after >= established_at for each in healing.wanted)
    lacks_session = unasked or healing.outranked
    ask_wait = _wait(healing.asked_at, _request_pause(healing, sending_session), now) if ask else 0
    fresh_wait = _wait(healing.fresh_at, FRESH_SESSION_MS, now) if lacks_session else 0
    waits = [wait for wait in (ask_wait, fresh_wait) if wait]
    return Plan(ask if not ask_wait else (), lacks_session and not fresh_wait, min(waits, default=None))


def _request_pause(healing: Healing, session: Session | None) -> int:
    """A request that the peer cannot read is itself unreadable, and asked for: where both ends lost their state, each
    would ask for the other's request for ever. So one is enough on a session until the peer answers on it.
    """
    if session is None or not session.carries_handshake or healing.asked_at < session.origin.established_at:
        return RETRY_REQUEST_MS
    return FRESH_SESSION_MS


def note_asked(tx: Transaction, healing: Healing, session: Session, now: int) -> None:
    """Note that a retry request named everything that could be asked for on this session."""
    established_at = session.origin.established_at
    wanted = []
    for each in healing.wanted:
        if each.after >= established_at:
            wanted.append(each)
        elif each.asks + 1 < MAX_RETRY_ASKS:
            wanted.append(Wanted(each.envelope_id, established_at, each.asks + 1))
    save_healing(tx, healing._replace(asked_at=now, wanted=tuple(wanted)), now)


def note_fresh_session(tx: Transaction, session: Session, now: int) -> None:
    """Note that a session was started; counts if it was to heal. If it was to outrank a dead one, the peer must hear of
    it although there may be nothing to say: then an answer is owed on it.
    """
    healing = load_healing(tx, session.peer)
    if healing.outranked:
        session_records.save_session(tx, session._replace(owes_answer=True))
        session_records.owe_answer(tx, session, now)
    if healing.wanted or healing.outranked:
        save_healing(tx, healing._replace(fresh_at=now, outranked=False), now)


def note_outranked(tx: Transaction, peer: DeviceAddress, now: int) -> None:
    """Let a fresh session be due if a dead one outranks what remains: nothing may be sent on what remains
    (`session_records.sending_session`), and the peer may go on with the dead one.
    """
    for session in session_records.sessions_with(tx, peer):
        if session.may_send(now):
            return
        if session.dead:
            save_healing(tx, load_healing(tx, peer)._replace(outranked=True), now)
            return


def give_up(tx: Transaction, healing: Healing, now: int) -> None:
    """Ask for nothing more: the device has left its user's list."""
    save_healing(tx, healing._replace(wanted=(), outranked=False), now)


def next_established_at(known: list[Session], now: int) -> int:
    """Return when a new session with a device comes to be: later than all others, whatever the clock says."""
    return max([now, *(1 + session.origin.established_at for session in known)])


# --- the sender ----------------------------------------------------------------------------------------------


def honour(
    tx: Transaction, session: Session, contact: Contact, envelope_ids: tuple[EnvelopeId, ...], now: int
) -> list[Notice]:
    """Judge a retry request that came on `session`; note what is to be sent again.

    Each id must name an envelope for the very device that the session proves, sent on an earlier session; the device
    must be in the newest list. Other ids are ignored without a word. An honoured id ends sending on that session.
    """
    if not _is_listed(contact, session.peer):
        return []
    notices: list[Notice] = []
    given_up = set()
    for envelope_id in envelope_ids:
        sent = sent_envelope(tx, envelope_id)
        if sent is None or sent.recipient != session.peer:
            continue
        if session.origin.established_at <= sent.established_at:
            continue
        given_up.add(sent.session_id)
        if sent.original is not None and not request_resend(tx, sent, sent.recipient, now):
            notices.append(MessageNotResent(sent.message_id, sent.recipient))
    if given_up:
        _give_up_sessions(tx, session.peer, given_up)
        note_outranked(tx, session.peer, now)
    return notices


def note_list_change(tx: Transaction, before: Contact | None, after: Contact, now: int) -> None:
    """Do what a newer device list calls for: devices that are new in it get what waits for their user in the outbox,
    encrypted without them; of those that left it is noted since when they are gone.
    """
    if before is None or before.device_list == after.device_list:
        return
    added = note_who_left(tx, before.device_list.content, after.device_list.content, now)
    if not added:
        return
    for entry in message_records.outbox(tx):
        sent = sent_envelope(tx, entry.envelope_id)
        if sent is not None and sent.recipient.user_id == after.user_id:
            for address in added:
                request_resend(tx, sent, address, now)


def note_who_left(tx: Transaction, before: DeviceList, after: DeviceList, now: int) -> list[DeviceAddress]:
    """Note which devices left between two lists of a user, of those with which there are sessions; return new ones."""
    known, present = before.addresses(), after.addresses()
    for address in known:
        if address in present:
            continue
        session_records.settle_meeting(tx, address)  # of a device of ours that left before it came to a session
        if session_records.sessions_with(tx, address):
            trust_records.note_removed(tx, address, now)
    added = [address for address in present if address not in known]
    for address in added:
        trust_records.forget_removed(tx, address)
    return added


def _give_up_sessions(tx: Transaction, peer: DeviceAddress, session_ids: set[bytes]) -> None:
    """End sending on sessions that the peer cannot read."""
    for session in session_records.sessions_with(tx, peer):
        if session.session_id in session_ids:
            session_records.save_session(tx, session.mark_dead())


def _is_listed(contact: Contact | None, device: DeviceAddress) -> bool:
    return contact is not None and contact.device_list.content.device(device.device_id) is not None


def _latest_counted(tx: ReadTransaction, peer: DeviceAddress, now: int) -> int:
    """Return when the latest session came to be that the peer may have used for what it sent; 0 if there is none.

    One that we started and that was not answered yet is later than what the peer has sent so far: it is what we ask on.
    But not for ever. If the peer sends on a session that we lost and that outranks this one, it never answers on it.
    """
    counted = [
        session.origin.established_at
        for session in session_records.sessions_with(tx, peer)
        if not (session.carries_handshake and _wait(session.origin.established_at, FRESH_SESSION_MS, now))
    ]
    return max(counted, default=0)


def _wait(last: int, pause: int, now: int) -> int:
    """Return how long to wait. A clock that was set back does not make it longer than the pause."""
    since = now - last
    return pause - since if 0 <= since < pause else 0
