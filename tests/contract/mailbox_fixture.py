"""One inbox on a database of its own, for tests of the mailbox's statements."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, select
from sqlalchemy.pool import NullPool, StaticPool

from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, EnvelopeId
from keyserver.database import database_url
from tests.contract.relay_world import START, address
from tests.databases import database_for
from transport_adapters.base import SeqRange
from transport_adapters.server.lanes import Budget, Schedule
from transport_adapters.server.mailbox import InboxState, Mailbox, Position
from transport_adapters.server.pending import Pending, Reader, read_pending
from transport_adapters.server.ports import OK, SendCheck
from transport_adapters.server.posting import Appended, Posted
from transport_adapters.server.settings import DEFAULT_MAILBOX, MailboxSettings
from transport_adapters.server.tables import define_tables

_IN_MEMORY = ":memory:"
EVERYTHING = Budget(messages=100_000, bytes=1 << 40)


@dataclass
class Inbox:
    """Bob's mailbox, and the clock."""

    connection: Connection
    mailbox: Mailbox
    owner: DeviceAddress
    now: int = START
    counter: int = 0

    def append(
        self,
        sender: DeviceAddress,
        envelope_id: int,
        *,
        body: bytes = b"",
        lane: Lane = Lane.CHAT,
        ttl: int = 3600,
        check: SendCheck = OK,
    ) -> Appended:
        return self.append_all([self.posted(sender, envelope_id, body, lane, ttl)], check)[0]

    def posted(self, sender: DeviceAddress, envelope_id: int, body: bytes, lane: Lane, ttl: int) -> Posted:
        self.counter += 1
        name = EnvelopeId(envelope_id.to_bytes(16, "big"))
        envelope = Envelope(name, sender, self.owner, lane, ttl, body)
        return Posted(envelope, envelope.encode(), self.counter)

    def append_all(self, batch: list[Posted], check: SendCheck = OK) -> list[Appended]:
        posting = self.mailbox.posting(self.connection, batch)
        results = [posting.append(each, lambda: check, self.now) for each in batch]
        posting.flush()
        return results

    def state(self, epoch: int = 0, watermark: int = 0) -> InboxState:
        state = self.mailbox.hello(self.connection, self.owner, epoch, watermark, self.now)
        assert state is not None
        return state

    def read(self, schedule: Schedule, budget: Budget = EVERYTHING) -> list[Pending]:
        reader = Reader(self.mailbox.sql, self.state().inbox_id, self.now)
        return read_pending(self.connection, reader, schedule, budget)

    def drain(self, budget: Budget = EVERYTHING) -> list[Pending]:
        """Read everything, as a new connection with this much credit at a time would."""
        schedule, rows = Schedule(), list[Pending]()
        while batch := self.read(schedule, budget):
            rows += batch
        return rows

    def ack(self, epoch: int, *ranges: tuple[int, int]) -> bool:
        position = Position(epoch, [SeqRange(*each) for each in ranges])
        return self.mailbox.ack(self.connection, self.state().inbox_id, [position]) == [True]

    def rows(self) -> list[Any]:
        envelopes = self.mailbox.tables.envelopes
        return list(self.connection.execute(select(envelopes).order_by(envelopes.c.seq)))


def _engine(url: str) -> Engine:
    if url == _IN_MEMORY:
        return create_engine("sqlite://", poolclass=StaticPool)
    return create_engine(database_url(url), poolclass=NullPool)


@contextmanager
def open_inbox(settings: MailboxSettings = DEFAULT_MAILBOX, url: str | None = None) -> Iterator[Inbox]:
    """Open an inbox on the database whose turn it is, or on the one named."""
    metadata = MetaData()
    mailbox = Mailbox(define_tables(metadata), settings)
    engine = _engine(url or database_for(Path(_IN_MEMORY)))
    with engine.connect() as connection:
        metadata.create_all(connection)
        mailbox.create_inbox(connection, address("bob"), START)
        yield Inbox(connection, mailbox, address("bob"))
    engine.dispose()
