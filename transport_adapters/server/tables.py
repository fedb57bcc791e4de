"""The mailbox's tables.

Owns: columns, keys and indexes.
Does not know about: what the rows mean (mailbox.py). One MetaData holds these and the key service's tables.
"""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)

from e2ee.limits import MAX_USER_ID

STORED: Final = 0
"""An envelope with its body, not acked."""
EXPIRED: Final = 1
"""A bodiless row: the envelope expired before it was acked. Delivered as `dropped`, acked like any other."""
ACKED: Final = 2
"""A tombstone: never delivered again, recognises a retried send."""

# SQLite numbers rows by itself only where the column is exactly INTEGER.
_RowId: Final = BigInteger().with_variant(Integer, "sqlite")


@final
@dataclass(frozen=True, slots=True)
class MailboxTables:
    """The tables of the mailbox, bound to one MetaData."""

    inboxes: Table
    senders: Table
    envelopes: Table
    counters: Table
    presence: Table
    leases: Table


def define_tables(metadata: MetaData) -> MailboxTables:
    """Register the mailbox's tables on `metadata`. All names begin with `e2ee_`."""
    return MailboxTables(
        inboxes=_inboxes(metadata),
        senders=_senders(metadata),
        envelopes=_envelopes(metadata),
        counters=_counters(metadata),
        presence=_presence(metadata),
        leases=_leases(metadata),
    )


def _inboxes(metadata: MetaData) -> Table:
    """One row per device. `envelopes` and `bytes` count what has a body, `dropped` the bodiless rows not acked."""
    return Table(
        "e2ee_inboxes",
        metadata,
        Column("id", _RowId, primary_key=True),
        Column("user_id", String(MAX_USER_ID), nullable=False),
        Column("device_id", LargeBinary(16), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("head_seq", BigInteger, nullable=False, server_default="0"),
        Column("acked_epoch", BigInteger, nullable=False, server_default="0"),
        Column("acked_seq", BigInteger, nullable=False, server_default="0"),
        Column("dropped_through", BigInteger, nullable=False, server_default="0"),
        Column("envelopes", Integer, nullable=False, server_default="0"),
        Column("bytes", BigInteger, nullable=False, server_default="0"),
        Column("dropped", Integer, nullable=False, server_default="0"),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("user_id", "device_id"),
    )


def _senders(metadata: MetaData) -> Table:
    """One row per inbox and device that ever sent to it. `ordinal` counts its envelopes and never goes back."""
    return Table(
        "e2ee_inbox_senders",
        metadata,
        Column("id", _RowId, primary_key=True),
        Column("inbox_id", _RowId, ForeignKey("e2ee_inboxes.id", ondelete="CASCADE"), nullable=False),
        Column("user_id", String(MAX_USER_ID), nullable=False),
        Column("device_id", LargeBinary(16), nullable=False),
        Column("ordinal", BigInteger, nullable=False),
        Column("envelopes", Integer, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        UniqueConstraint("inbox_id", "user_id", "device_id"),
    )


def _envelopes(metadata: MetaData) -> Table:
    """One row per sequence number. `ordinal` is the row's number among its sender's; times are Unix milliseconds."""
    table = Table(
        "e2ee_envelopes",
        metadata,
        Column("inbox_id", _RowId, ForeignKey("e2ee_inboxes.id", ondelete="CASCADE"), primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("sender_id", _RowId, ForeignKey("e2ee_inbox_senders.id", ondelete="CASCADE"), nullable=False),
        Column("envelope_id", LargeBinary(16), nullable=False),
        Column("ordinal", BigInteger, nullable=False),
        Column("lane", SmallInteger, nullable=False),
        Column("state", SmallInteger, nullable=False),
        Column("size", Integer, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", LargeBinary, nullable=True),
        UniqueConstraint("sender_id", "envelope_id"),
    )
    pending = table.c.state < ACKED
    stored = table.c.state == STORED
    by_lane = (table.c.inbox_id, table.c.lane, table.c.seq)
    Index("ix_e2ee_envelopes_pending", *by_lane, sqlite_where=pending, postgresql_where=pending)
    Index("ix_e2ee_envelopes_expires_at", table.c.expires_at, sqlite_where=stored, postgresql_where=stored)
    Index("ix_e2ee_envelopes_created_at", table.c.created_at)
    return table


def _counters(metadata: MetaData) -> Table:
    """The highest counter n accepted from each sending device. Apart from the inbox: its lock is taken last."""
    return Table(
        "e2ee_send_counters",
        metadata,
        Column("user_id", String(MAX_USER_ID), primary_key=True),
        Column("device_id", LargeBinary(16), primary_key=True),
        Column("counter", BigInteger, nullable=False),
    )


def _presence(metadata: MetaData) -> Table:
    """The lease of each device that wants to be seen; nothing of the others. `connection_id` says whose word it is."""
    table = Table(
        "e2ee_presence",
        metadata,
        Column("user_id", String(MAX_USER_ID), primary_key=True),
        Column("device_id", LargeBinary(16), primary_key=True),
        Column("connection_id", LargeBinary(16), nullable=False),
        Column("state", SmallInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
    )
    Index("ix_e2ee_presence_connection_id", table.c.connection_id, unique=True)
    Index("ix_e2ee_presence_expires_at", table.c.expires_at)
    return table


def _leases(metadata: MetaData) -> Table:
    """What only one process may do at a time, who does it, and until when it may. A random `owner` names a process."""
    table = Table(
        "e2ee_leases",
        metadata,
        Column("name", String(64), primary_key=True),
        Column("owner", LargeBinary(16), nullable=False),
        Column("expires_at", BigInteger, nullable=False),
    )
    Index("ix_e2ee_leases_owner", table.c.owner)
    return table
