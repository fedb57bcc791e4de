"""From an envelope to a content in the inbound table (protocol.md sections 10 to 12).

Owns: which session decrypts, the order of the checks, what commits together.
Does not know about: the network, the application. Everything up to `_commit` only reads, so a refused envelope has
changed nothing.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, final

from e2ee import contact_sharing, healing, history, session as sessions
from e2ee.account import Account, OwnPreKey, PreKeyKind
from e2ee.errors import (
    AuthenticationError,
    DuplicateMessageError,
    EpochUnknownError,
    ForbiddenContentError,
    InvalidSignatureError,
    KeyEvictedError,
    MalformedMessageError,
    ProtocolError,
    RemovedDeviceError,
    ReplayedHandshakeError,
    SessionNotFoundError,
    TooManySkippedError,
    UnknownPreKeyError,
    UnlistedDeviceError,
    WrongRecipientError,
)
from e2ee.limits import CALL_CLOCK_SKEW_MS, CALL_TTL_SECONDS, LATE_ENVELOPE_MS, SECOND_MS
from e2ee.notices import (
    AccountKeysDiffer,
    ContactsShared,
    DeviceListsForked,
    EpochStalled,
    Notice,
    OwnDevicesChanged,
    SessionReplaced,
)
from e2ee.ports import ReadTransaction, Transaction
from e2ee.pqxdh import ResponderKeys
from e2ee.primitives import kdf
from e2ee.private_keys import KemPreKeyPair, PreKeyPair, RatchetEncapsulate
from e2ee.ratchet.skipped_keys import FindSkipped, nothing_skipped
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.session import DecryptedContent, Session
from e2ee.stores import healing_records, message_records, records, session_records, trust_records
from e2ee.stores.records import Contact
from e2ee.trust import check_listed, hear_of_list, judge_device_list, note_first_use
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.contacts import decode_linked
from e2ee.wire.content import (
    Content,
    ContentKind,
    Receipt,
    decode_application,
    decode_device_lists,
    decode_retry_request,
)
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId
from e2ee.wire.message import HandshakeHeader, PreKeyMessage, RatchetMessage, decode_body
from e2ee.wire.sync import decode_sync

_NOT_FOR_THE_APPLICATION = frozenset(
    {
        ContentKind.RETRY_REQUEST,
        ContentKind.DEVICE_LIST_UPDATE,
        ContentKind.LINK,
        ContentKind.EMPTY,
        ContentKind.SESSION_RESET,
    }
)
"""Known kinds that the application is not shown. Unknown kinds are kept for it, as unsupported."""


_BEFORE_AUTHENTICATION = (AuthenticationError, EpochUnknownError, KeyEvictedError, TooManySkippedError)
"""What a session raises for a header that another session wrote."""


class Receiver(NamedTuple):
    """This device at one moment: its account, its clock (Unix milliseconds), its randomness for the KEM."""

    account: Account
    now: int
    encapsulate: RatchetEncapsulate


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope that authenticated and passed every check, before it is committed."""

    envelope: Envelope
    body_hash: bytes
    decrypted: DecryptedContent
    content: Content
    contact: Contact
    handshake: "NewSession | None"


@final
@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that a first message would start, and the prekeys that it would use up."""

    session: Session
    header: HandshakeHeader
    used_one_time: tuple[PreKeyId, ...]

    @property
    def needs_replay_memory(self) -> bool:
        return not self.used_one_time


@final
class Received(NamedTuple):
    """What a committed envelope led to."""

    number: int | None
    """Of the inbound row, if it made one."""
    notices: tuple[Notice, ...]
    tend: bool
    """Whether something may be due by itself now (tending.py)."""
    call: CallSignal | None = None
    """A signal of a call that goes on now; kept nowhere else."""
    new_own_devices: tuple[DeviceAddress, ...] = ()
    """In a newer list of our own that the message brought along: they are to have what other devices of ours have."""


def receive(tx: Transaction, receiver: Receiver, envelope: Envelope) -> Received:
    """Decrypt an envelope and commit everything that follows.

    Raises:
        WrongRecipientError: addressed to another device.
        DuplicateMessageError: this body was committed before.
        Other ProtocolErrors and AccountKeyChangedError: refused; nothing was changed.
    """
    if envelope.recipient != receiver.account.address:
        raise WrongRecipientError(str(envelope.recipient))
    body_hash = kdf.sha256(envelope.body)
    if message_records.is_known_body(tx, body_hash):
        raise DuplicateMessageError
    opened = _open(tx, receiver, envelope, body_hash)
    return _commit(tx, receiver, opened)


def _open(tx: ReadTransaction, receiver: Receiver, envelope: Envelope, body_hash: bytes) -> Opened:
    body = decode_body(envelope.body)
    new = None
    if isinstance(body, PreKeyMessage):
        session = _session_of_handshake(tx, envelope.sender, body.handshake)
        if session is None:
            new = _respond(tx, receiver, envelope.sender, body.handshake)
            decrypted = _decrypt(tx, receiver, new.session, body.message, nothing_skipped)
        else:
            decrypted = _decrypt(tx, receiver, session, body.message, session_records.skipped_lookup(tx, session))
    else:
        decrypted = _decrypt_established(tx, receiver, envelope.sender, body)
    content = Content.decode(decrypted.content)
    _check_body(content, envelope.sender.user_id, _is_own(receiver, decrypted.session))
    contact = _judge_sender(tx, receiver, content, decrypted.session, new is not None)
    return Opened(envelope, body_hash, decrypted, content, contact, new)


def _session_of_handshake(tx: ReadTransaction, sender: DeviceAddress, header: HandshakeHeader) -> Session | None:
    """Find the session that a repeated first message belongs to (protocol.md section 6.4).

    Raises:
        ReplayedHandshakeError: its H is in the replay memory, and its session is gone.
    """
    handshake_hash = header.hash()
    for session in session_records.sessions_with(tx, sender):
        if session.origin.handshake_hash == handshake_hash:
            return session
    if session_records.is_replay(tx, handshake_hash):
        raise ReplayedHandshakeError
    return None


def _respond(tx: ReadTransaction, receiver: Receiver, sender: DeviceAddress, header: HandshakeHeader) -> NewSession:
    """Derive the session of a first message, without using anything up."""
    signed_prekey = _own_prekey(tx, header.signed_prekey_id, PreKeyKind.SIGNED)
    kem_prekey = _own_prekey(tx, header.kem_prekey_id, PreKeyKind.ONE_TIME_KEM, PreKeyKind.LAST_RESORT_KEM)
    one_time = None
    if header.one_time_prekey_id is not None:
        one_time = _own_prekey(tx, header.one_time_prekey_id, PreKeyKind.ONE_TIME)
    used = tuple(each.prekey_id for each in (one_time, kem_prekey) if each is not None and each.kind.is_one_time)
    if not used and session_records.replay_memory_is_full(tx, kem_prekey.prekey_id):
        raise UnknownPreKeyError(kem_prekey.prekey_id)
    keys = ResponderKeys(
        receiver.account.identity_key_pair,
        _x25519(signed_prekey),
        _x25519(one_time) if one_time else None,
        _kem(kem_prekey),
    )
    established_at = healing.next_established_at(session_records.sessions_with(tx, sender), receiver.now)
    session = sessions.start_as_responder(receiver.account.party, keys, sender, header, established_at)
    return NewSession(session, header, used)


def _own_prekey(tx: ReadTransaction, prekey_id: PreKeyId, *kinds: PreKeyKind) -> OwnPreKey:
    prekey = records.load_prekey(tx, prekey_id)
    if prekey is None or prekey.kind not in kinds:
        raise UnknownPreKeyError(prekey_id)
    return prekey


def _x25519(prekey: OwnPreKey) -> PreKeyPair:
    if not isinstance(prekey.pair, PreKeyPair):
        raise UnknownPreKeyError(prekey.prekey_id)
    return prekey.pair


def _kem(prekey: OwnPreKey) -> KemPreKeyPair:
    if not isinstance(prekey.pair, KemPreKeyPair):
        raise UnknownPreKeyError(prekey.prekey_id)
    return prekey.pair


def _decrypt_established(
    tx: ReadTransaction, receiver: Receiver, sender: DeviceAddress, message: RatchetMessage
) -> DecryptedContent:
    """Decrypt with the session that knows the ratchet key; else try those that could turn, sending session first.

    Raises:
        See `Session.decrypt`. If several sessions were tried, the error is that of the first.
    """
    candidates = session_records.sessions_with(tx, sender)
    if not candidates:
        _refuse_long_removed(tx, sender, receiver.now)
        raise SessionNotFoundError(str(sender))
    for session in candidates:
        find = session_records.skipped_lookup(tx, session)
        if session.knows(message, find):
            return _decrypt(tx, receiver, session, message, find)
    failures: list[ProtocolError] = []
    for session in (session for session in candidates if session.can_turn()):
        try:
            return _decrypt(tx, receiver, session, message, session_records.skipped_lookup(tx, session))
        except _BEFORE_AUTHENTICATION as failure:
            # The header counts in the chains of the session that sent it; to another one it may look like any nonsense.
            failures.append(failure)
    raise failures[0] if failures else AuthenticationError()


def _decrypt(
    tx: ReadTransaction, receiver: Receiver, session: Session, message: RatchetMessage, find: FindSkipped
) -> DecryptedContent:
    """Decrypt with one session. What the relay dropped of this device widens the gap that is allowed.

    Raises:
        See `Session.decrypt`.
    """
    arrival = Arrival(find, receiver.now, encapsulate=receiver.encapsulate)
    try:
        return session.decrypt(message, arrival)
    except TooManySkippedError as error:
        # Looked up only now: hardly any message skips so much.
        allowance = healing_records.skip_allowance(tx, session.peer)
        if error.gap > allowance:
            raise
    return session.decrypt(message, arrival._replace(max_skip=allowance))


def _is_own(receiver: Receiver, session: Session) -> bool:
    """Whether a session is one with another device of our own account."""
    account, peer = receiver.account, session.origin.peer
    # In this order: a public key is computed anew each time, and almost every message is another user's.
    is_our_user = peer.address.user_id == account.address.user_id
    return is_our_user and peer.account_key == account.account_key_pair.public


def _check_body(content: Content, sender: UserId, is_own: bool) -> None:
    """Decode the bodies that will be acted on, so that a malformed one is refused while nothing has changed.

    Raises:
        MalformedMessageError, InvalidPublicKeyError: it does not decode.
        InvalidSignatureError: a contact of a link content does not verify.
        ForbiddenContentError: this sender may not send it.
    """
    match content.kind:
        case ContentKind.APPLICATION:
            decode_application(content.body)
        case ContentKind.RECEIPT:
            Receipt.decode(content.body)
        case ContentKind.RETRY_REQUEST:
            decode_retry_request(content.body)
        case ContentKind.CALL:
            CallSignal.decode(content.body)
        case ContentKind.DEVICE_LIST_UPDATE:
            if any(each.unverified.user_id != sender for each in decode_device_lists(content.body)):
                raise ForbiddenContentError(content.kind)
        case ContentKind.SYNC:
            if not is_own:
                raise ForbiddenContentError(content.kind)
            decode_sync(content.body)
        case ContentKind.LINK:
            if not is_own:
                raise ForbiddenContentError(content.kind)
            linked = decode_linked(content.body)
            for contact in linked.contacts if linked is not None else ():
                contact.verify(sender)
        case _:
            pass


def _judge_sender(tx: ReadTransaction, receiver: Receiver, content: Content, session: Session, is_new: bool) -> Contact:
    """Judge who sent it: the session's device, against the pinned key and the newest list known (section 4.2)."""
    peer = session.origin.peer
    user_id = peer.address.user_id
    if peer.address == receiver.account.address:
        raise UnlistedDeviceError(str(peer.address))
    if user_id == receiver.account.address.user_id and not _is_own(receiver, session):
        # Not a changed key for people to decide on: nobody but us says which key is ours.
        raise UnlistedDeviceError(str(peer.address))
    contact = records.load_contact(tx, user_id)
    if content.device_list is not None:
        contact = _judge_carried_list(tx, receiver, content.device_list, session)
    if contact is None or (is_new and content.device_list is None):
        raise MalformedMessageError("a first message carries its sender's device list")
    if is_new:
        check_listed(contact.device_list, peer)
    elif not _is_listed(contact, peer.address):
        _refuse_long_removed(tx, peer.address, receiver.now)
        # A removed device may still be read, but its word on the user's lists could only stop us from sending, and one
        # of ours may be lost: it must not write into our history what we never said, as a copy or as a note to us, nor
        # tell us whom to trust.
        own = user_id == receiver.account.address.user_id
        if own and (content.kind == ContentKind.LINK or content.kind not in _NOT_FOR_THE_APPLICATION):
            raise ForbiddenContentError(content.kind)
        return contact
    return hear_of_list(contact, content.sender_list)


def _is_listed(contact: Contact, device: DeviceAddress) -> bool:
    return contact.device_list.content.device(device.device_id) is not None


def _refuse_long_removed(tx: ReadTransaction, device: DeviceAddress, now: int) -> None:
    """Refuse what a device says when all that it can have sent while it was listed has arrived or expired.

    Raises:
        RemovedDeviceError: it left its user's list more than 45 days ago.
    """
    removed_at = trust_records.removed_at(tx, device)
    if removed_at is not None and now - removed_at > LATE_ENVELOPE_MS:
        raise RemovedDeviceError(str(device))


def _judge_carried_list(tx: ReadTransaction, receiver: Receiver, signed: SignedDeviceList, session: Session) -> Contact:
    peer = session.origin.peer
    if signed.unverified.account_key != peer.account_key:
        raise InvalidSignatureError("device list: signed by another account key than the session's")
    check_listed(signed.verify(peer.address.user_id), peer)
    return judge_device_list(tx, peer.address.user_id, signed)


def _commit(tx: Transaction, receiver: Receiver, opened: Opened) -> Received:
    """Write all that follows from an authenticated message. One transaction with the caller's delivery position."""
    session, now = opened.decrypted.session, receiver.now
    notices: list[Notice] = []
    if opened.decrypted.skipped:
        session_records.add_skipped(tx, session, opened.decrypted.skipped, now)
        healing_records.forget_dropped(tx, session.peer)
    for position in opened.decrypted.used:
        session_records.use_skipped(tx, session, position)
    if opened.handshake is not None:
        if session_records.sessions_with(tx, session.peer):
            notices.append(SessionReplaced(session.peer))
        _commit_handshake(tx, opened.handshake, now)
        # Last, because it deletes the session that exceeds the limit, perhaps this one, with its skipped keys.
        session_records.add_session(tx, session)
    else:
        session_records.save_session(tx, session)
    if session.dead or opened.handshake is not None:
        healing.note_outranked(tx, session.peer, now)
    if session.owes_answer:
        session_records.owe_answer(tx, session, now)
    if opened.decrypted.epoch_stalled:
        notices.append(EpochStalled(session.peer))
    known = records.load_contact(tx, opened.contact.user_id)
    new_own_devices: tuple[DeviceAddress, ...] = ()
    if opened.contact != known:
        more, new_own_devices = _save_contact(tx, receiver, known, opened.contact)
        notices += more
        if opened.contact.forked and not (known is not None and known.forked):
            notices.append(DeviceListsForked(opened.contact.user_id))
    if not _is_listed(opened.contact, session.peer):
        trust_records.note_removed(tx, session.peer, now)  # should it have left when this was not noted yet
    message_records.remember_body(tx, opened.body_hash, now)
    number, of_content, call = _commit_content(tx, receiver, opened)
    is_request = opened.content.kind == ContentKind.RETRY_REQUEST
    # The first message on a session starts it, or answers it: what was asked for on it may be asked for again.
    tend = session.receives == 1 or is_request or session.owes_answer or session.dead
    return Received(number, (*notices, *of_content), tend or bool(new_own_devices), call, new_own_devices)


def _save_contact(
    tx: Transaction, receiver: Receiver, known: Contact | None, contact: Contact
) -> tuple[list[Notice], tuple[DeviceAddress, ...]]:
    """Save what a message said of its sender's lists; return what to tell of it, and which devices of ours are new."""
    records.save_contact(tx, contact)
    if known is None:
        note_first_use(tx, contact, receiver.now)
    if known is None or contact.user_id != receiver.account.address.user_id:
        healing.note_list_change(tx, known, contact, receiver.now)
        return [], ()
    # A link of our own chain was taken in only if none lacks before it.
    before, after = known.device_list.content, records.own_device_list(tx).content
    added = healing.note_who_left(tx, before, after, receiver.now)
    new = tuple(sorted(each.device_id for each in added))
    gone = tuple(each.device_id for each in before.devices if after.device(each.device_id) is None)
    return [OwnDevicesChanged(new, gone)] if new or gone else [], tuple(added)


def _commit_handshake(tx: Transaction, new: NewSession, now: int) -> None:
    for prekey_id in new.used_one_time:
        records.delete_prekey(tx, prekey_id)
    if new.needs_replay_memory:
        session_records.remember_handshake(tx, new.header.kem_prekey_id, new.header.hash(), now)


def _commit_content(
    tx: Transaction, receiver: Receiver, opened: Opened
) -> tuple[int | None, list[Notice], CallSignal | None]:
    content, sender, now = opened.content, opened.envelope.sender, receiver.now
    if message_records.is_known_message(tx, sender.user_id, content.message_id):
        # The same message in a second ciphertext: the session has moved on, the application saw it already.
        return None, [], None
    message_records.remember_message(tx, sender.user_id, content.message_id, now)
    if content.kind == ContentKind.RETRY_REQUEST:
        envelope_ids = decode_retry_request(content.body)
        return None, healing.honour(tx, opened.decrypted.session, opened.contact, envelope_ids, now), None
    if content.kind in _NOT_FOR_THE_APPLICATION:
        return None, _believe(tx, sender, content, now), None
    if content.kind == ContentKind.SYNC and decode_sync(content.body) is None:
        return None, [], None  # of a later release
    if content.kind == ContentKind.CALL:
        signal = CallSignal.decode(content.body)
        if signal.action is not CallAction.MISSED:
            # Of use now or not at all, so it must not wait behind what the application has not read yet.
            fresh = content.sent_at + CALL_TTL_SECONDS * SECOND_MS + CALL_CLOCK_SKEW_MS > now
            return None, [], signal if fresh else None
    history.note_content(tx, receiver.account.address.user_id, sender, content, now)
    stored = replace(content, device_list=None).encode()
    return message_records.add_inbound(tx, sender, stored, now), [], None


def _believe(tx: Transaction, device: DeviceAddress, content: Content, now: int) -> list[Notice]:
    """Take in what another device of ours says about contacts, if that is what a content does."""
    linked = decode_linked(content.body) if content.kind == ContentKind.LINK else None
    if linked is None:
        return []  # another kind, or of a later release
    believed = contact_sharing.believe(tx, device.user_id, linked, now)
    notices: list[Notice] = [ContactsShared(device, believed.changed)]
    notices += [AccountKeysDiffer(each) for each in believed.waiting]
    return notices + [DeviceListsForked(each) for each in believed.forked]
