"""The delivering half of one connection: credit in, envelopes out.

Owns: the client's credit, when to read the mailbox.
Does not know about: sends, acks, tokens.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, final

from transport_adapters.fields import MAX_U32
from transport_adapters.frames import DROPPED_TTL, Deliver
from transport_adapters.server.channel import Outbox
from transport_adapters.server.lanes import LOOKAHEAD, Budget, Schedule
from transport_adapters.server.pending import Pending, Reader, read_pending
from transport_adapters.server.ports import Database, Meter
from transport_adapters.server.statements import Statements


class Source(NamedTuple):
    """Where deliveries come from."""

    database: Database
    sql: Statements
    now: Callable[[], int]
    inbox_id: int
    epoch: int
    meter: Meter


@final
class Delivery:
    """Sends one inbox's rows to one connection, each once, as far as credit and the queue allow."""

    def __init__(self, source: Source, outbox: Outbox, credit: Budget) -> None:
        self._source = source
        self._outbox = outbox
        self._credit = credit
        self._schedule = Schedule()
        self._wake = asyncio.Event()
        self._wake.set()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    def grant(self, messages: int, size: int) -> None:
        """Add credit. It saturates: no sum of grants is more than u32 can say."""
        have = self._credit
        self._credit = Budget(min(MAX_U32, have.messages + messages), min(MAX_U32, have.bytes + size))
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._deliver_some():
                pass

    async def _deliver_some(self) -> bool:
        if self._credit.messages == 0:
            return False
        room = await self._outbox.room()
        budget = Budget(min(self._credit.messages, LOOKAHEAD), min(self._credit.bytes, room))
        source = self._source
        reader = Reader(source.sql, source.inbox_id, source.now())
        rows = await source.database.read(lambda connection: read_pending(connection, reader, self._schedule, budget))
        for row in rows:
            size = 0 if row.envelope is None else len(row.envelope)
            self._credit = Budget(self._credit.messages - 1, self._credit.bytes - size)
            self._outbox.put(_frame(source.epoch, row))
            if row.envelope is not None:
                source.meter.delivered(source.now() - row.stored_at)
        return bool(rows)


def _frame(epoch: int, row: Pending) -> Deliver:
    if row.envelope is not None:
        return Deliver(epoch, row.seq, row.envelope)
    return Deliver(epoch, row.seq, sender=row.sender, envelope_id=row.envelope_id, dropped=DROPPED_TTL)
