"""Typed views of a transaction: what is on its way out, what came in, what must not come in twice.

Owns: keys, groups and values of outbox, failed sends, inbound, deliveries, body hashes, message ids and unreadable
envelopes.
Does not know about: sessions and the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from e2ee.errors import CorruptStateError, ProtocolError
from e2ee.limits import MAX_ENVELOPE, MAX_TIMESTAMP, MAX_UNREADABLE
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.stores.records import counter, next_counter, set_counter
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.content import Content
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId, MessageId, UserId, decode_ascii

_SEND_COUNTER = b"send"
_OFFLINE_ABOVE = b"offline above"
"""1 more than the n before the first envelope that was queued since the opening; 0 once there was a connection."""
_INBOUND_NUMBER = b"inbound"
_EPOCH = b"inbox epoch"
_WATERMARK = b"inbox watermark"
_ACKED_EPOCH = b"acked epoch"
_ACKED_SEQ = b"acked seq"
_COMMITTED = b"committed"
_ONE_GROUP = b""
"""Naming the group lets a store take the first rows from its index; across groups it must sort them all."""
_MAX_COMMITTED = 1_000
_FAILED_VERSION = 1


@final
@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One envelope that the server has not accepted yet. A retry sends the same bytes."""

    envelope_id: EnvelopeId
    message_id: MessageId
    counter: int
    """n: this device's count of envelopes, committed with the row."""
    created_at: int
    recipient: DeviceAddress
    envelope: bytes = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class FailedSend:
    """One envelope that was given up, until the application was told of it."""

    envelope_id: EnvelopeId
    message_id: MessageId
    recipient: DeviceAddress
    code: str
    """Why: stable, for example `expired`."""


@final
@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One decrypted content that the application has not confirmed yet."""

    number: int
    """Position in the inbound table; orders what the application sees."""
    sender: DeviceAddress
    received_at: int
    content: Content
    from_removed_device: bool = False
    """Whether the device that sent it is not in its user's newest list any more."""


def add_outbox(tx: Transaction, envelope: Envelope, message_id: MessageId, now: int) -> OutboxEntry:
    """Queue an envelope under the next counter."""
    number, encoded = next_counter(tx, _SEND_COUNTER), envelope.encode()
    writer = Writer().u64(number).u64(now).raw(message_id.raw).bytes32(encoded)
    tx.put(Table.OUTBOX, envelope.envelope_id.raw, writer.finish(), order=number)
    return OutboxEntry(envelope.envelope_id, message_id, number, now, envelope.recipient, encoded)


def outbox(tx: ReadTransaction, limit: int | None = None) -> list[OutboxEntry]:
    """Return queued envelopes, oldest first."""
    return [_decode_outbox(record.value) for record in tx.scan(Table.OUTBOX, _ONE_GROUP, limit=limit)]


def remove_outbox(tx: Transaction, envelope_id: EnvelopeId) -> bool:
    """Remove an envelope; return whether it was queued."""
    queued = tx.get(Table.OUTBOX, envelope_id.raw) is not None
    tx.delete(Table.OUTBOX, envelope_id.raw)
    return queued


def give_up(tx: Transaction, entry: OutboxEntry, code: str, now: int) -> None:
    """Remove an envelope that will not arrive, and keep that fact until the application was told of it."""
    tx.delete(Table.OUTBOX, entry.envelope_id.raw)
    writer = Writer().u8(_FAILED_VERSION).raw(entry.message_id.raw).raw(entry.recipient.encode()).ascii8(code)
    tx.put(Table.FAILED_SENDS, entry.envelope_id.raw, writer.finish(), order=min(now, MAX_TIMESTAMP))


def give_up_by_id(tx: Transaction, envelope_id: EnvelopeId, code: str, now: int) -> None:
    """Do the same with one that is named; nothing happens if it is not queued (any more)."""
    queued = tx.get(Table.OUTBOX, envelope_id.raw)
    if queued is not None:
        give_up(tx, _decode_outbox(queued), code, now)


def failed_sends(tx: ReadTransaction) -> list[FailedSend]:
    """Return envelopes that were given up and of which the application was not told, oldest first."""
    return [_decode_failed(record.key, record.value) for record in tx.scan(Table.FAILED_SENDS, _ONE_GROUP)]


def forget_failed_send(tx: Transaction, envelope_id: EnvelopeId) -> None:
    tx.delete(Table.FAILED_SENDS, envelope_id.raw)


def send_counter(tx: ReadTransaction) -> int:
    """Return the highest n used."""
    return counter(tx, _SEND_COUNTER)


def note_offline(tx: Transaction) -> None:
    """Note that no envelope beyond the present n can leave until the relay has stated what it remembers."""
    if counter(tx, _OFFLINE_ABOVE) == 0:
        set_counter(tx, _OFFLINE_ABOVE, send_counter(tx) + 1)


def note_online(tx: Transaction) -> None:
    """Note that envelopes leave from now on."""
    set_counter(tx, _OFFLINE_ABOVE, 0)


def highest_released(tx: ReadTransaction) -> int:
    """Return the highest n whose envelope can have reached the relay, as far as the store knows."""
    offline_above = counter(tx, _OFFLINE_ABOVE)
    return offline_above - 1 if offline_above else send_counter(tx)


def raise_send_counter(tx: Transaction, least: int) -> None:
    """Let the next n be above `least`. Clamped, so that no stated number exhausts the counter."""
    set_counter(tx, _SEND_COUNTER, max(send_counter(tx), min(least, MAX_TIMESTAMP // 2)))


def add_inbound(tx: Transaction, sender: DeviceAddress, content: bytes, now: int) -> int:
    """Append a content for the application; return its number."""
    number = next_counter(tx, _INBOUND_NUMBER)
    writer = Writer().raw(sender.encode()).u64(now).bytes32(content)
    tx.put(Table.INBOUND, number.to_bytes(8, "big"), writer.finish(), order=number)
    return number


def inbound(tx: ReadTransaction, limit: int | None = None) -> list[InboundMessage]:
    """Return unconfirmed contents in the order of their arrival."""
    return [_decode_inbound(record.order, record.value) for record in tx.scan(Table.INBOUND, _ONE_GROUP, limit=limit)]


def remove_inbound(tx: Transaction, number: int) -> None:
    tx.delete(Table.INBOUND, number.to_bytes(8, "big"))


def is_known_body(tx: ReadTransaction, body_hash: bytes) -> bool:
    return tx.get(Table.BODY_HASHES, body_hash) is not None


def remember_body(tx: Transaction, body_hash: bytes, now: int) -> None:
    tx.put(Table.BODY_HASHES, body_hash, b"", order=now)


def is_known_message(tx: ReadTransaction, sender: UserId, message_id: MessageId) -> bool:
    return tx.get(Table.MESSAGE_IDS, message_id.raw + sender.encode()) is not None


def remember_message(tx: Transaction, sender: UserId, message_id: MessageId, now: int) -> None:
    tx.put(Table.MESSAGE_IDS, message_id.raw + sender.encode(), b"", order=now)


def remember_unreadable(tx: Transaction, envelope: Envelope, error_code: str, now: int) -> None:
    """Record an envelope that could not be read, so that it may be acknowledged."""
    key = envelope.envelope_id.raw + envelope.sender.encode()
    tx.put(Table.UNREADABLE, key, error_code.encode(), group=envelope.sender.encode(), order=now)
    # Anybody who reaches our inbox can make such records, under any name.
    excess = tx.count(Table.UNREADABLE) - MAX_UNREADABLE
    if excess > 0:
        for record in tx.scan(Table.UNREADABLE, limit=excess):
            tx.delete(Table.UNREADABLE, record.key)


def cursor(tx: ReadTransaction) -> tuple[int, int]:
    """Return (epoch, watermark): every seq up to the watermark is committed."""
    return counter(tx, _EPOCH), counter(tx, _WATERMARK)


def start_epoch(tx: Transaction, epoch: int, floor: int) -> None:
    """Begin or go on with an inbox epoch; a new one starts at 0. Nothing up to `floor` will be delivered any more."""
    known_epoch, watermark = cursor(tx)
    if epoch != known_epoch:
        set_counter(tx, _EPOCH, epoch)
        tx.delete_group(Table.DELIVERIES, _COMMITTED)
        watermark = 0
    watermark = _absorb(tx, max(watermark, floor))
    tx.delete_before(Table.DELIVERIES, min(watermark + 1, MAX_TIMESTAMP))
    set_counter(tx, _WATERMARK, watermark)


def commit_delivery(tx: Transaction, epoch: int, seq: int) -> None:
    """Record that a delivery was committed, in the transaction that commits it."""
    if epoch != counter(tx, _EPOCH):
        start_epoch(tx, epoch, 0)
    watermark = counter(tx, _WATERMARK)
    if seq == watermark + 1:
        set_counter(tx, _WATERMARK, _absorb(tx, seq))
    elif seq > watermark:
        tx.put(Table.DELIVERIES, seq.to_bytes(8, "big"), b"", group=_COMMITTED, order=seq)
        _close_gap(tx)


def highest_committed(tx: ReadTransaction) -> tuple[int, int]:
    """Return the highest position, (epoch, seq), that this device can have acknowledged, as far as the store knows."""
    epoch, watermark = cursor(tx)
    newest = tx.scan(Table.DELIVERIES, _COMMITTED, limit=1, newest_first=True)
    committed = epoch, max(watermark, newest[0].order if newest else 0)
    return max(committed, (counter(tx, _ACKED_EPOCH), counter(tx, _ACKED_SEQ)))


def note_acked(tx: Transaction, epoch: int, seq: int) -> None:
    """Take over a position that this device acknowledged before its store was rolled back."""
    set_counter(tx, _ACKED_EPOCH, epoch)
    set_counter(tx, _ACKED_SEQ, seq)


def is_committed(tx: ReadTransaction, epoch: int, seq: int) -> bool:
    """Whether a delivery was committed before."""
    known_epoch, watermark = cursor(tx)
    if epoch != known_epoch:
        return False
    return seq <= watermark or tx.get(Table.DELIVERIES, seq.to_bytes(8, "big")) is not None


def _close_gap(tx: Transaction) -> None:
    """Give up a gap that has stayed open for long: in a new epoch, seqs acknowledged in the old one never come again.

    Harmless, because the cursor filters nothing: after each hello the server sends whatever is not acknowledged.
    """
    if tx.count(Table.DELIVERIES, _COMMITTED) > _MAX_COMMITTED:
        lowest = tx.scan(Table.DELIVERIES, _COMMITTED, limit=1)[0].order
        set_counter(tx, _WATERMARK, _absorb(tx, lowest - 1))


def _absorb(tx: Transaction, watermark: int) -> int:
    """Return the watermark, advanced over committed seqs that follow it directly."""
    while tx.get(Table.DELIVERIES, (watermark + 1).to_bytes(8, "big")) is not None:
        watermark += 1
        tx.delete(Table.DELIVERIES, watermark.to_bytes(8, "big"))
    return watermark


def committed_above_watermark(tx: ReadTransaction) -> Sequence[int]:
    """Return committed seqs beyond the watermark, ascending."""
    return [record.order for record in tx.scan(Table.DELIVERIES, _COMMITTED)]


def _decode_outbox(data: bytes) -> OutboxEntry:
    reader = Reader(data)
    try:
        number, created_at, message_id = reader.u64(), reader.u64(), MessageId.decode(reader)
        encoded = reader.bytes32(MAX_ENVELOPE)
        envelope = Envelope.decode(encoded)
    except ProtocolError:
        raise CorruptStateError("outbox entry does not decode") from None
    return OutboxEntry(envelope.envelope_id, message_id, number, created_at, envelope.recipient, encoded)


def _decode_failed(key: bytes, data: bytes) -> FailedSend:
    reader = Reader(data)
    try:
        if (version := reader.u8()) != _FAILED_VERSION:
            raise CorruptStateError(f"a failed send has layout version {version}")
        message_id, recipient = MessageId.decode(reader), DeviceAddress.decode(reader)
        code = decode_ascii(reader.bytes8())
        reader.finish()
        return FailedSend(EnvelopeId(key), message_id, recipient, code)
    except (ProtocolError, ValueError):
        raise CorruptStateError("a failed send does not decode") from None


def _decode_inbound(number: int, data: bytes) -> InboundMessage:
    reader = Reader(data)
    try:
        sender, received_at = DeviceAddress.decode(reader), reader.u64()
        content = Content.decode(reader.bytes32(MAX_ENVELOPE))
    except ProtocolError:
        raise CorruptStateError("inbound content does not decode") from None
    return InboundMessage(number, sender, received_at, content)
