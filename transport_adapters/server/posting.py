"""Storing what one device sends, a batch in one transaction.

Owns: which envelopes are stored, and under which numbers: deduplication, quotas, sequence numbers, ordinals.
Does not know about: acks and delivery (mailbox.py, pending.py); device lists (`check` judges them).

Each inbox is read once, under its row lock, and written once. What a batch adds is counted here in between: a statement
costs far more than an envelope's bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, final

from sqlalchemy import Connection

from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId
from transport_adapters.server.ports import Ok, SendCheck, StaleList, Unavailable
from transport_adapters.server.settings import MailboxSettings
from transport_adapters.server.statements import Statements, named, of_device
from transport_adapters.server.tables import STORED


@final
@dataclass(frozen=True, slots=True)
class Posted:
    """An envelope as it came, decoded, with its sender's counter n."""

    envelope: Envelope
    encoded: bytes
    counter: int


class Stored(NamedTuple):
    """The envelope is in the mailbox, under this sequence number; `duplicate` if it was there before."""

    seq: int
    duplicate: bool


@final
class Full(Enum):
    """The inbox refuses: it is full, or this sending user has its half of it."""

    INBOX = "the inbox is full"
    SENDER = "the sender has filled half of the inbox"


Appended = Stored | Full | StaleList | Unavailable


@final
@dataclass(slots=True)
class _Inbox:
    """An inbox as it stands, counting what this batch adds. `sender_id` is None until the device has sent to it."""

    inbox_id: int
    head_seq: int
    envelopes: int
    bytes: int
    sender_id: int | None
    ordinal: int
    known: dict[EnvelopeId, int]
    added: int = 0
    added_bytes: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, envelope_id: EnvelopeId, size: int) -> None:
        self.head_seq += 1
        self.ordinal += 1
        self.envelopes += 1
        self.added += 1
        self.bytes += size
        self.added_bytes += size
        self.known[envelope_id] = self.head_seq


@final
class Posting:
    """One sending device's batch. `append` each envelope, then `flush`; nothing is written before."""

    def __init__(
        self, sql: Statements, settings: MailboxSettings, connection: Connection, batch: Sequence[Posted]
    ) -> None:
        self._sql = sql
        self._settings = settings
        self._connection = connection
        self._batch = batch
        self._inboxes: dict[DeviceAddress, _Inbox | None] = {}
        self._counter: tuple[DeviceAddress, int] | None = None

    def append(self, posted: Posted, check: Callable[[], SendCheck], now: int) -> Appended:
        """Take in one envelope of the batch, unless it is stored already, the check refuses it, or there is no room.

        A retried send gets the first result, even if lists or quota have changed since.
        """
        envelope = posted.envelope
        inbox = self._inbox(envelope.recipient)
        if inbox is None:
            verdict = check()
            return Unavailable() if isinstance(verdict, Ok) else verdict
        known_seq = inbox.known.get(envelope.envelope_id)
        if known_seq is not None:
            self._count(posted)
            return Stored(known_seq, duplicate=True)
        verdict = check()
        if not isinstance(verdict, Ok):
            return verdict
        full = self._full(inbox, posted)
        if full is not None:
            return full
        inbox.add(envelope.envelope_id, len(posted.encoded))
        inbox.rows.append(self._row(inbox, posted, now))
        self._count(posted)
        return Stored(inbox.head_seq, duplicate=False)

    def flush(self) -> None:
        """Write what was taken in. The counter's lock is taken last: the order is inbox, counter."""
        connection, sql = self._connection, self._sql
        for inbox in self._inboxes.values():
            if inbox is None or not inbox.rows:
                continue
            more = {"count": inbox.added, "size": inbox.added_bytes}
            filled = {"of_inbox": inbox.inbox_id, "seq": inbox.head_seq, **more}
            connection.execute(sql.fill_inbox, filled)
            sender_id = self._write_sender(inbox, more)
            connection.execute(sql.insert_envelope, [{**row, "sender_id": sender_id} for row in inbox.rows])
        if self._counter is not None:
            sender, counter = self._counter
            connection.execute(sql.raise_counter[connection.dialect.name], {**named(sender), "counter": counter})

    def _inbox(self, recipient: DeviceAddress) -> _Inbox | None:
        if recipient not in self._inboxes:
            self._inboxes[recipient] = self._read(recipient)
        return self._inboxes[recipient]

    def _read(self, recipient: DeviceAddress) -> _Inbox | None:
        connection, sql = self._connection, self._sql
        row = connection.execute(sql.inbox, of_device(recipient)).one_or_none()
        if row is None:
            return None
        posted = [each.envelope for each in self._batch if each.envelope.recipient == recipient]
        sender = connection.execute(sql.sender, {"of_inbox": row.id, **of_device(posted[0].sender)}).one_or_none()
        known: dict[EnvelopeId, int] = {}
        if sender is not None:
            wanted = {"of_sender": sender.id, "of_envelopes": [each.envelope_id.raw for each in posted]}
            known = {EnvelopeId(raw): seq for raw, seq in connection.execute(sql.known, wanted)}
        sender_id, ordinal = (None, 0) if sender is None else sender
        return _Inbox(row.id, row.head_seq, row.envelopes, row.bytes, sender_id, ordinal, known)

    def _full(self, inbox: _Inbox, posted: Posted) -> Full | None:
        settings, size = self._settings, len(posted.encoded)
        if inbox.envelopes >= settings.max_envelopes or inbox.bytes + size > settings.max_bytes:
            return Full.INBOX
        half_envelopes, half_bytes = settings.max_envelopes // 2, settings.max_bytes // 2
        if inbox.envelopes < half_envelopes and inbox.bytes + size <= half_bytes:
            return None  # nobody can hold half of it
        of_user = {"of_inbox": inbox.inbox_id, "of_user": posted.envelope.sender.user_id}
        count, total = self._connection.execute(self._sql.held_by_user, of_user).one()
        count, total = count + inbox.added, total + inbox.added_bytes
        return Full.SENDER if count >= half_envelopes or total + size > half_bytes else None

    def _row(self, inbox: _Inbox, posted: Posted, now: int) -> dict[str, Any]:
        envelope, ttl = posted.envelope, posted.envelope.ttl
        if envelope.lane is Lane.CONTROL:
            ttl = min(ttl, self._settings.control_ttl_seconds)
        return {
            "inbox_id": inbox.inbox_id,
            "seq": inbox.head_seq,
            "envelope_id": envelope.envelope_id.raw,
            "ordinal": inbox.ordinal,
            "lane": int(envelope.lane),
            "state": STORED,
            "size": len(posted.encoded),
            "created_at": now,
            "expires_at": now + 1000 * ttl,
            "body": posted.encoded,
        }

    def _write_sender(self, inbox: _Inbox, more: dict[str, int]) -> int:
        """Count the envelopes for their sender; return its row's id."""
        if inbox.sender_id is not None:
            of_sender = {"of_sender": inbox.sender_id, "last_ordinal": inbox.ordinal, **more}
            self._connection.execute(self._sql.fill_sender, of_sender)
            return inbox.sender_id
        first = {
            "inbox_id": inbox.inbox_id,
            **named(self._batch[0].envelope.sender),
            "ordinal": inbox.ordinal,
            "envelopes": inbox.added,
            "bytes": inbox.added_bytes,
        }
        sender_id: int = self._connection.execute(self._sql.first_of_sender, first).scalar_one()
        return sender_id

    def _count(self, posted: Posted) -> None:
        """Note the highest counter n that was accepted."""
        if self._counter is None or posted.counter > self._counter[1]:
            self._counter = posted.envelope.sender, posted.counter
