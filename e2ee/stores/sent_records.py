"""Typed views of a transaction: what was sent to whom on which session, and what must be sent again.

Owns: keys, groups and values of the sent log and of the resends.
Does not know about: who may ask for a message again (healing.py), encryption.

One record for each envelope. The first envelope of a message holds the content, those for other devices name it, so a
send to one device costs one record. Contents go after 14 days or 1,000 messages; what names the session stays.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, final

from e2ee.errors import CorruptStateError, ProtocolError
from e2ee.limits import MAX_ENVELOPE, MAX_RESENDS, MAX_SENT_CONTENTS, MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import (
    ConversationId,
    DeviceAddress,
    EnvelopeId,
    MessageId,
    decode_ascii,
    parse_conversation_id,
)

_WITH_CONTENT, _WITHOUT = b"C", b""
_DUE, _DONE = b"due", b""
_TRIM_EVERY = 64
"""Counting takes time in proportion to the count: the limit is looked at now and then."""
_STRIP_STEP = 16


@final
@dataclass(frozen=True, slots=True)
class SentContent:
    """What must be known of a message to say it again."""

    kind: int
    conversation_id: ConversationId
    lane: Lane
    ttl: int
    sent_at: int
    body: bytes = field(repr=False)


class SentEnvelope(NamedTuple):
    """One envelope that was queued once."""

    envelope_id: EnvelopeId
    message_id: MessageId
    number: int
    """n: this device's count of envelopes."""
    recipient: DeviceAddress
    session_id: bytes
    established_at: int
    """Of that session, so that a later one can be told from it when it is gone."""
    original: EnvelopeId | None
    """The envelope whose record holds the content; None for what nobody would miss, as a retry request."""


class Resend(NamedTuple):
    """A message that one device is to get (again)."""

    message_id: MessageId
    recipient: DeviceAddress
    original: EnvelopeId
    number: int
    """n of the envelope that could not be read; orders what is sent again."""
    times: int
    """How often it was sent again to this device."""
    due: bool


def log_envelope(tx: Transaction, sent: SentEnvelope, content: SentContent | None, now: int) -> None:
    """Log an envelope; `content` comes with the first one of a message that may be sent again."""
    writer = Writer().raw(sent.message_id.raw).u64(sent.number).raw(sent.recipient.encode()).raw(sent.session_id)
    writer.u64(sent.established_at).bytes8(sent.original.raw if sent.original else b"")
    if content is not None:
        writer.u8(content.kind).ascii8(content.conversation_id).u8(content.lane).u32(content.ttl)
        writer.u64(content.sent_at).bytes32(content.body)
    group = _WITHOUT if content is None else _WITH_CONTENT
    tx.put(Table.SENT, sent.envelope_id.raw, writer.finish(), group=group, order=now)


def trim(tx: Transaction, counter: int) -> None:
    """Forget contents beyond the newest 1,000; `counter` is the number of the envelope just sent."""
    if counter % _TRIM_EVERY == 0:
        surplus = tx.count(Table.SENT, _WITH_CONTENT) - MAX_SENT_CONTENTS
        if surplus > 0:
            _strip(tx, surplus, MAX_TIMESTAMP)


def forget_contents(tx: Transaction, before: int) -> None:
    """Forget the contents of what was sent before a time."""
    _strip(tx, None, before)


def sent_envelope(tx: ReadTransaction, envelope_id: EnvelopeId) -> SentEnvelope | None:
    """Return what is known of an envelope; None if it was never sent, or longer ago than 45 days."""
    found = _load(tx, envelope_id)
    return found[0] if found else None


def sent_content(tx: ReadTransaction, original: EnvelopeId) -> SentContent | None:
    """Return a message's content; None if it was not kept, or not for so long."""
    found = _load(tx, original)
    return found[1] if found else None


# --- resends -------------------------------------------------------------------------------------------------


def request_resend(tx: Transaction, sent: SentEnvelope, recipient: DeviceAddress, now: int) -> bool:
    """Note that a device is to get a message (again); return False if its content is gone, or was sent 3 times more."""
    if sent.original is None or sent_content(tx, sent.original) is None:
        return False
    resend = _load_resend(tx, sent.message_id, recipient)
    if resend is None:
        resend = Resend(sent.message_id, recipient, sent.original, sent.number, 0, due=False)
    if resend.due:
        return True
    if resend.times >= MAX_RESENDS:
        return False
    _put_resend(tx, resend._replace(times=resend.times + 1, due=True), now)
    return True


def due_resends(tx: ReadTransaction) -> list[Resend]:
    """Return what is to be sent again, in the order in which it was sent first."""
    due = [_decode_resend(record.value) for record in tx.scan(Table.RESENDS, _DUE)]
    return sorted(due, key=lambda resend: resend.number)


def settle_resend(tx: Transaction, resend: Resend, now: int) -> None:
    """Note that a resend is in the outbox, or that it never will be. Its count stays."""
    _put_resend(tx, resend._replace(due=False), now)


def _load(tx: ReadTransaction, envelope_id: EnvelopeId) -> tuple[SentEnvelope, SentContent | None] | None:
    data = tx.get(Table.SENT, envelope_id.raw)
    return None if data is None else _decode(envelope_id, data)


def _decode(envelope_id: EnvelopeId, data: bytes) -> tuple[SentEnvelope, SentContent | None]:
    reader = Reader(data)
    try:
        message_id, number, recipient = MessageId.decode(reader), reader.u64(), DeviceAddress.decode(reader)
        session_id, established_at, original = reader.fixed(32), reader.u64(), reader.bytes8()
        named = EnvelopeId(original) if original else None
        sent = SentEnvelope(envelope_id, message_id, number, recipient, session_id, established_at, named)
        content = _read_content(reader) if reader.position() < len(data) else None
        reader.finish()
    except (ProtocolError, ValueError):
        raise CorruptStateError("sent envelope does not decode") from None
    return sent, content


def _read_content(reader: Reader) -> SentContent:
    kind, conversation_id = reader.u8(), parse_conversation_id(decode_ascii(reader.bytes8()))
    lane, ttl, sent_at = Lane(reader.u8()), reader.u32(), reader.u64()
    return SentContent(kind, conversation_id, lane, ttl, sent_at, reader.bytes32(MAX_ENVELOPE))


def _strip(tx: Transaction, limit: int | None, before: int) -> None:
    """Take the content out of the oldest records, `limit` at most, whose time is below `before`."""
    stripped = 0
    # A few at a time: mostly the first one may stay.
    while some := tx.scan(Table.SENT, _WITH_CONTENT, limit=_STRIP_STEP):
        for record in some:
            if stripped == limit or record.order >= before:
                return
            sent, _ = _decode(EnvelopeId(record.key), record.value)
            log_envelope(tx, sent, None, record.order)
            stripped += 1


def _resend_key(message_id: MessageId, recipient: DeviceAddress) -> bytes:
    return message_id.raw + recipient.encode()


def _put_resend(tx: Transaction, resend: Resend, now: int) -> None:
    writer = Writer().raw(resend.message_id.raw).raw(resend.recipient.encode())
    value = writer.raw(resend.original.raw).u64(resend.number).u8(resend.times).u8(resend.due).finish()
    group = _DUE if resend.due else _DONE
    tx.put(Table.RESENDS, _resend_key(resend.message_id, resend.recipient), value, group=group, order=now)


def _load_resend(tx: ReadTransaction, message_id: MessageId, recipient: DeviceAddress) -> Resend | None:
    data = tx.get(Table.RESENDS, _resend_key(message_id, recipient))
    return None if data is None else _decode_resend(data)


def _decode_resend(data: bytes) -> Resend:
    reader = Reader(data)
    try:
        message_id, recipient = MessageId.decode(reader), DeviceAddress.decode(reader)
        original, number = EnvelopeId.decode(reader), reader.u64()
        resend = Resend(message_id, recipient, original, number, reader.u8(), reader.flag())
        reader.finish()
    except ProtocolError:
        raise CorruptStateError("resend does not decode") from None
    return resend
