"""From a content to envelopes in the outbox, one for each device of the recipient, or for one device alone.

Owns: session start from bundles, fan-out, what every outgoing content carries, what of it is logged.
Does not know about: the network, when the outbox is emptied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, final

from e2ee import contact_sharing, history, session as sessions
from e2ee.account import Account
from e2ee.errors import (
    DeviceListForkError,
    DeviceListStaleError,
    SessionNotFoundError,
    UnlistedDeviceError,
)
from e2ee.healing import next_established_at, note_fresh_session
from e2ee.history import Arrived
from e2ee.limits import MAX_RECEIPT_IDS, MAX_TIMESTAMP, MAX_TTL_SECONDS
from e2ee.ports import ReadTransaction, Transaction
from e2ee.primitives.rng import Rng
from e2ee.session import Session
from e2ee.stores.message_records import OutboxEntry, add_outbox, note_offline, outbox, send_counter
from e2ee.stores.records import Contact, own_device_list
from e2ee.stores.sent_records import (
    SentContent,
    SentEnvelope,
    due_resends,
    log_envelope,
    request_resend,
    sent_content,
    sent_envelope,
    trim,
)
from e2ee.stores.session_records import add_session, save_session, sending_session, sessions_with, settle_answer
from e2ee.trust import recipients, sendable_contact
from e2ee.wire.content import Content, ContentKind
from e2ee.wire.device_list import VerifiedDeviceList
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, DeviceAddress, EnvelopeId, MessageId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle
from e2ee.wire.sync import ReadMarks, SentCopy

_NEVER_REPEATED = frozenset({ContentKind.RETRY_REQUEST, ContentKind.EMPTY, ContentKind.SESSION_RESET})


@final
@dataclass(frozen=True, slots=True)
class Draft:
    """A content before it is addressed: what the application wants to say, and how urgently."""

    kind: int
    body: bytes = field(repr=False)
    """Plaintext, so kept out of `repr`."""

    conversation_id: ConversationId
    lane: Lane
    ttl: int
    """Seconds."""

    @property
    def is_worth_repeating(self) -> bool:
        """Whether a device that could not read it would miss it; a call is over by then."""
        return self.lane is not Lane.CONTROL and self.kind not in _NEVER_REPEATED


EMPTY: Final = Draft(ContentKind.EMPTY, b"", ConversationId(""), Lane.RECEIPT, MAX_TTL_SECONDS)
"""Says nothing, and gives the post-quantum ratchet a message to ride on."""


@final
@dataclass(frozen=True, slots=True)
class Queued:
    """What `queue` did."""

    message_id: MessageId
    entries: tuple[OutboxEntry, ...]
    without_session: tuple[DeviceAddress, ...]
    """Listed devices that were skipped because no session with them could be started."""
    copies: tuple[OutboxEntry, ...] = ()
    """For the other devices of our own user."""
    tend: bool = False
    """Whether a device of our own waits for a session, and gets its copy on it: call `Messenger.tend`."""


class Sender(NamedTuple):
    """This device at one moment: its account, its clock (Unix milliseconds), its randomness."""

    account: Account
    now: int
    rng: Rng
    keeps_contents: bool = True
    """Whether the sent log keeps what was said, so that it can be sent again."""
    may_send: bool = True
    """Whether the relay was heard since the store was opened; what is queued before cannot leave (rollback.py)."""


class Repeated(NamedTuple):
    """What a further envelope of a message has in common with the first."""

    message_id: MessageId
    sent_at: int
    original: EnvelopeId
    """The envelope under which the sent log keeps the content."""


class _Logged(NamedTuple):
    """What the sent log is told beside the envelope."""

    draft: Draft
    sent_at: int
    original: EnvelopeId | None


def start_session(tx: Transaction, sender: Sender, bundle: PreKeyBundle) -> Session:
    """Verify a bundle against its user's newest known list and start a session with it.

    Raises:
        DeviceListStaleError, DeviceListForkError: see `trust.sendable_contact`.
        UnlistedDeviceError, InvalidSignatureError, PreKeyExpiredError: see `PreKeyBundle.verify`.
        InvalidPublicKeyError: a key of the bundle is of low order or out of range.
    """
    contact = sendable_contact(tx, bundle.address.user_id, sender.now)
    if bundle.address == sender.account.address:
        raise UnlistedDeviceError(str(bundle.address))
    verified = bundle.verify(contact.device_list, sender.now)
    known = sessions_with(tx, bundle.address)
    created = min(max([sender.now, *(1 + session.origin.created for session in known)]), MAX_TIMESTAMP)
    account = sender.account
    clock = sessions.Clock(created, next_established_at(known, sender.now))
    session = sessions.start_as_initiator(account.party, account.identity_key_pair, verified, clock, sender.rng)
    for higher in known:
        # A peer may have used the highest time there is, so that the order among equals, by T, would decide. Whoever
        # starts a session means to send on it.
        if higher.precedence > session.precedence and not higher.dead:
            save_session(tx, higher.mark_dead())
    add_session(tx, session)
    note_fresh_session(tx, session, sender.now)
    return session


def queue(tx: Transaction, sender: Sender, user_id: UserId, draft: Draft) -> Queued:
    """Encrypt a draft to every device of a user and queue the envelopes.

    New session states and envelopes are committed together, before any ciphertext is released.

    Raises:
        DeviceListStaleError, DeviceListForkError: see `trust.sendable_contact`.
        SessionNotFoundError: there is a session with none of the user's devices.
    """
    contact = sendable_contact(tx, user_id, sender.now)
    message_id = MessageId(sender.rng(16))
    whom = recipients(contact, sender.account.address)
    entries, without_session = _fan_out(tx, sender, (contact, whom), draft, message_id)
    if not entries:
        raise SessionNotFoundError(user_id)
    copies: tuple[OutboxEntry, ...] = ()
    tend = False
    if draft.kind == ContentKind.APPLICATION:
        history.add(tx, _sent(sender, user_id, message_id, draft), sender.now)
        if user_id != sender.account.address.user_id:
            copies, tend = _copy(tx, sender, user_id, message_id, draft)
    return Queued(message_id, entries, without_session, copies, tend)


def tell_read(tx: Transaction, sender: Sender, author: UserId, message_ids: Sequence[MessageId]) -> bool:
    """Tell our other devices that messages of a user were read; return whether one of them waits for a session."""
    tend = False
    for batch in batched(message_ids):
        body = ReadMarks(author, batch).encode()
        draft = Draft(ContentKind.SYNC, body, ConversationId(""), Lane.CHAT, MAX_TTL_SECONDS)
        _, waits = _to_own_devices(tx, sender, MessageId(sender.rng(16)), draft)
        tend = tend or waits
    return tend


def tell_contact(tx: Transaction, sender: Sender, user_id: UserId) -> bool:
    """Tell our other devices how things stand with a contact; return whether one of them waits for a session."""
    draft = _link(contact_sharing.one_contact(tx, user_id))
    _, waits = _to_own_devices(tx, sender, MessageId(sender.rng(16)), draft)
    return waits


def tell_contacts(tx: Transaction, sender: Sender, session: Session) -> int:
    """Tell a device of our own that has just been linked of all contacts; return how many envelopes that takes.

    Raises:
        DeviceListStaleError, DeviceListForkError: see `trust.sendable_contact`.
    """
    own, queued = sender.account.address.user_id, 0
    to = sendable_contact(tx, own, sender.now), (session.peer,)
    for body in contact_sharing.everything(tx, own):
        _fan_out(tx, sender, to, _link(body), MessageId(sender.rng(16)))
        queued += 1
    return queued


def _link(body: bytes) -> Draft:
    return Draft(ContentKind.LINK, body, ConversationId(""), Lane.BULK, MAX_TTL_SECONDS)


def copy_to_new_devices(tx: Transaction, sender: Sender, added: Sequence[DeviceAddress]) -> None:
    """Let devices that are new in our own list have the copies of what waits, encrypted without them.

    What waits for others was refused by the relay, or will be, as sent under a list that is not the newest any more:
    it leaves after the new devices came, so they are to have it.
    """
    own = sender.account.address.user_id
    known = [sent_envelope(tx, entry.envelope_id) for entry in outbox(tx)]
    waiting = [sent for sent in known if sent is not None and sent.original is not None]
    of_copies = [sent_envelope(tx, each.original) for each in due_resends(tx) if each.recipient.user_id == own]
    copies = [sent for sent in (*waiting, *of_copies) if sent is not None and _is_copy(tx, sent)]
    for message_id in {sent.message_id: sent for sent in waiting if not _is_copy(tx, sent)}:
        if message_id not in {copy.message_id for copy in copies}:
            sent = next(sent for sent in waiting if sent.message_id == message_id)
            if (copy := _late_copy(tx, sender, sent)) is not None:
                copies.append(copy)
    for copy in {copy.message_id: copy for copy in copies}.values():
        for address in added:
            request_resend(tx, copy, address, sender.now)


def _is_copy(tx: ReadTransaction, sent: SentEnvelope) -> bool:
    content = None if sent.original is None else sent_content(tx, sent.original)
    return content is not None and content.kind == ContentKind.SYNC


def _late_copy(tx: Transaction, sender: Sender, sent: SentEnvelope) -> SentEnvelope | None:
    """Log the copy of a message that had none for a device which is asked for it; None if its content is gone."""
    content = None if sent.original is None else sent_content(tx, sent.original)
    whom = sent.recipient.user_id
    if content is None or content.kind != ContentKind.APPLICATION or whom == sender.account.address.user_id:
        return None
    body = SentCopy(whom, content.kind, content.body).encode()
    original = EnvelopeId(sender.rng(16))
    copy = sent._replace(envelope_id=original, session_id=bytes(32), established_at=0, original=original)
    lane = Lane.CHAT if content.lane is Lane.CONTROL else content.lane
    log_envelope(tx, copy, replace(content, kind=ContentKind.SYNC, body=body, lane=lane), sender.now)
    return copy


def batched(message_ids: Sequence[MessageId]) -> Iterator[tuple[MessageId, ...]]:
    """Yield ids in groups that one receipt or sync may name."""
    for at in range(0, len(message_ids), MAX_RECEIPT_IDS):
        yield tuple(message_ids[at : at + MAX_RECEIPT_IDS])


def _copy(
    tx: Transaction, sender: Sender, user_id: UserId, message_id: MessageId, draft: Draft
) -> tuple[tuple[OutboxEntry, ...], bool]:
    """Let our other devices have what was just sent, so that their histories hold both sides of it."""
    body = SentCopy(user_id, draft.kind, draft.body).encode()
    # What is urgent for its recipient is not for us, and lane 0 has no room for the names.
    lane = Lane.CHAT if draft.lane is Lane.CONTROL else draft.lane
    return _to_own_devices(tx, sender, message_id, replace(draft, kind=ContentKind.SYNC, body=body, lane=lane))


def _to_own_devices(
    tx: Transaction, sender: Sender, message_id: MessageId, draft: Draft
) -> tuple[tuple[OutboxEntry, ...], bool]:
    """Encrypt a draft to our other devices; return the envelopes, and whether a device waits for a session.

    Nothing about our own devices holds up what others are to get.
    """
    own, known = sender.account.address, own_device_list(tx).content.addresses()
    if len(known) == 1:
        return (), False
    try:
        ourselves = sendable_contact(tx, own.user_id, sender.now)
    except DeviceListForkError:
        return (), False
    except DeviceListStaleError:
        # A device of ours named a newer list than is here. Once that is here, all of them get what they lack.
        entries, waiting = tuple[OutboxEntry, ...](), tuple(address for address in known if address != own)
    else:
        entries, waiting = _fan_out(tx, sender, (ourselves, recipients(ourselves, own)), draft, message_id)
    if not waiting or not sender.keeps_contents:
        return entries, False
    original = entries[0].envelope_id if entries else EnvelopeId(sender.rng(16))
    sent = SentEnvelope(original, message_id, send_counter(tx), waiting[0], bytes(32), 0, original)
    if not entries:
        # An envelope that never was: the log keeps the content under its id until there are sessions.
        log_envelope(tx, sent, _logged_content(_Logged(draft, sender.now, original)), sender.now)
    for address in waiting:
        request_resend(tx, sent, address, sender.now)
    return entries, True


def _fan_out(
    tx: Transaction,
    sender: Sender,
    to: tuple[Contact, Sequence[DeviceAddress]],
    draft: Draft,
    message_id: MessageId,
) -> tuple[tuple[OutboxEntry, ...], tuple[DeviceAddress, ...]]:
    """Encrypt a draft to devices of a user; return the envelopes, and the devices without a session."""
    (contact, addresses), own_list = to, own_device_list(tx)
    entries: list[OutboxEntry] = []
    without_session = []
    for address in addresses:
        session = sending_session(tx, address, sender.now)
        if session is None:
            without_session.append(address)
            continue
        content = _content(draft, message_id, sender.now, own_list, contact.device_list)
        entry = _encrypt(tx, sender, session, _for_session(content, session, own_list), draft)
        entries.append(entry)
        _log(tx, sender, session, entry, _Logged(draft, sender.now, entries[0].envelope_id))
    return tuple(entries), tuple(without_session)


def _sent(sender: Sender, user_id: UserId, message_id: MessageId, draft: Draft) -> Arrived:
    """Return what was just sent, for the history."""
    own = sender.account.address
    return Arrived(
        message_id=message_id,
        author=own.user_id,
        device=own.device_id,
        peer=user_id,
        conversation=draft.conversation_id,
        kind=draft.kind,
        body=draft.body,
        sent_at=sender.now,
        ours=True,
    )


def heal(tx: Transaction, sender: Sender, user_id: UserId) -> Queued:
    """Ask for new post-quantum epochs in all sessions that send to a user, with an empty content each.

    Raises:
        See `queue`.
    """
    for address in recipients(sendable_contact(tx, user_id, sender.now), sender.account.address):
        session = sending_session(tx, address, sender.now)
        if session is not None:
            save_session(tx, session.ask_for_healing())
    return queue(tx, sender, user_id, EMPTY)


def queue_to(
    tx: Transaction, sender: Sender, session: Session, draft: Draft, repeated: Repeated | None = None
) -> OutboxEntry:
    """Encrypt a draft to one device, on a session that may send, and queue the envelope.

    `repeated` makes it one more envelope of a message that was sent before. Without it, the content is one that the
    device would not miss, and the log keeps what names the session, no more.

    Raises:
        DeviceListStaleError, DeviceListForkError: see `trust.sendable_contact`.
    """
    contact, own_list = sendable_contact(tx, session.peer.user_id, sender.now), own_device_list(tx)
    message_id = repeated.message_id if repeated else MessageId(sender.rng(16))
    sent_at = repeated.sent_at if repeated else sender.now
    content = _content(draft, message_id, sent_at, own_list, contact.device_list)
    entry = _encrypt(tx, sender, session, _for_session(content, session, own_list), draft)
    _log(tx, sender, session, entry, _Logged(draft, sent_at, repeated.original if repeated else None))
    return entry


def _content(
    draft: Draft, message_id: MessageId, now: int, own_list: VerifiedDeviceList, their_list: VerifiedDeviceList
) -> Content:
    return Content(
        message_id=message_id,
        kind=draft.kind,
        conversation_id=draft.conversation_id,
        sent_at=now,
        sender_list=own_list.position,
        recipient_list=their_list.position,
        body=draft.body,
    )


def _for_session(content: Content, session: Session, own_list: VerifiedDeviceList) -> Content:
    """Every PreKeyMessage carries the sender's device list: the responder may know nothing of us yet."""
    if not session.carries_handshake:
        return content
    return Content(
        content.message_id,
        content.kind,
        content.conversation_id,
        content.sent_at,
        content.sender_list,
        content.recipient_list,
        content.body,
        own_list.signed,
    )


def _encrypt(tx: Transaction, sender: Sender, session: Session, content: Content, draft: Draft) -> OutboxEntry:
    advanced, body = session.encrypt(content.encode(), sender.now, sender.rng)
    save_session(tx, advanced)
    if session.owes_answer:
        settle_answer(tx, session.session_id)
    envelope = Envelope(
        envelope_id=EnvelopeId(sender.rng(16)),
        sender=sender.account.address,
        recipient=session.peer,
        lane=draft.lane,
        ttl=draft.ttl,
        body=body,
    )
    if not sender.may_send:
        note_offline(tx)
    return add_outbox(tx, envelope, content.message_id, sender.now)


def _log(tx: Transaction, sender: Sender, session: Session, entry: OutboxEntry, logged: _Logged) -> None:
    """Note the envelope in the sent log, and with the first of a message what was said."""
    draft, original = logged.draft, logged.original
    if not draft.is_worth_repeating:
        original = None
    content = None
    if original == entry.envelope_id and sender.keeps_contents:
        content = _logged_content(logged)
    sent = SentEnvelope(
        envelope_id=entry.envelope_id,
        message_id=entry.message_id,
        number=entry.counter,
        recipient=entry.recipient,
        session_id=session.session_id,
        established_at=session.origin.established_at,
        original=original,
    )
    log_envelope(tx, sent, content, sender.now)
    trim(tx, entry.counter)


def _logged_content(logged: _Logged) -> SentContent:
    draft = logged.draft
    return SentContent(draft.kind, draft.conversation_id, draft.lane, draft.ttl, logged.sent_at, draft.body)
