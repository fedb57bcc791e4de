"""How full the mailbox is, for whoever watches the server.

Owns: that one statement.
Does not know about: whose inboxes they are.
"""

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from transport_adapters.server.settings import MailboxSettings
from transport_adapters.server.tables import MailboxTables


class InboxSizes(NamedTuple):
    """Of all inboxes together, and of the largest."""

    inboxes: int
    envelopes: int
    bytes: int
    most_envelopes: int
    most_bytes: int
    nearly_full: int
    """Inboxes that hold four fifths of what they may, in envelopes or in bytes."""


def inbox_sizes(connection: Connection, tables: MailboxTables, settings: MailboxSettings) -> InboxSizes:
    """Count what waits."""
    its = tables.inboxes.c
    crowded = (its.envelopes * 5 >= settings.max_envelopes * 4) | (its.bytes * 5 >= settings.max_bytes * 4)
    columns = (
        func.count(),
        func.coalesce(func.sum(its.envelopes), 0),
        func.coalesce(func.sum(its.bytes), 0),
        func.coalesce(func.max(its.envelopes), 0),
        func.coalesce(func.max(its.bytes), 0),
        func.count().filter(crowded),
    )
    return InboxSizes(*map(int, connection.execute(select(*columns)).one()))
