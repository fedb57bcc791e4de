"""The mailbox against a model of a few lines, over random histories.

It never loses an unacked envelope, never stores one twice, and its sequence numbers have no holes.
"""

from contextlib import ExitStack
from dataclasses import dataclass

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from e2ee.limits import DAY_MS
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mailbox_fixture import EVERYTHING, Inbox, open_inbox
from tests.contract.relay_world import address
from tests.databases import postgresql
from transport_adapters.server.lanes import Budget
from transport_adapters.server.posting import Appended, Full, Stored
from transport_adapters.server.retention import expire, purge
from transport_adapters.server.settings import MailboxSettings
from transport_adapters.server.tables import ACKED, EXPIRED, STORED

SENDERS = [address("alice", 1), address("alice", 2), address("carol")]
SMALL = MailboxSettings(max_envelopes=8, max_bytes=4_000, max_dropped=3)


@dataclass
class Row:
    """What the model knows of one accepted envelope."""

    seq: int
    sender: DeviceAddress
    envelope_id: int
    size: int
    created: int
    expires: int
    state: int = STORED


class MailboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.inbox: Inbox = self._stack.enter_context(open_inbox(SMALL, self.url()))
        self.rows: list[Row] = []
        self.head = 0
        self.ids = 0
        self.dropped_through = 0

    def url(self) -> str | None:
        return None

    def teardown(self) -> None:
        self._stack.close()

    @initialize()
    def begin(self) -> None:
        self.epoch = self.inbox.state().epoch

    @rule(
        sender=st.sampled_from(SENDERS),
        lane=st.sampled_from(Lane),
        ttl=st.sampled_from([1, 60, 3600, 28 * 24 * 3600]),
        length=st.sampled_from([0, 100, 1_500]),
        count=st.integers(1, 4),
        repeat=st.booleans(),
    )
    def append(self, sender: DeviceAddress, lane: Lane, ttl: int, length: int, count: int, repeat: bool) -> None:
        """One batch of a sender; perhaps its last envelope is there twice."""
        ids = [self.ids + 1 + number for number in range(count)]
        self.ids += count
        batch = [self.inbox.posted(sender, each, bytes(length), lane, ttl) for each in ids + ids[-1:] * repeat]
        results = self.inbox.append_all(batch)
        for envelope_id, result in zip(ids, results, strict=False):
            assert result == self.expected(sender, envelope_id, length, 60 if lane is Lane.CONTROL else ttl, ttl)
        if repeat:
            first = results[-2]
            assert results[-1] == (Stored(first.seq, duplicate=True) if isinstance(first, Stored) else first)

    def expected(self, sender: DeviceAddress, envelope_id: int, length: int, longest: int, ttl: int) -> Appended:
        size = 63 + len(sender.user_id) + length  # 63: the header without the sender's name
        held = [row for row in self.rows if row.state == STORED]
        own = [row for row in held if row.sender.user_id == sender.user_id]
        if len(held) >= 8 or sum(row.size for row in held) + size > 4_000:
            return Full.INBOX
        if len(own) >= 4 or sum(row.size for row in own) + size > 2_000:
            return Full.SENDER
        self.head += 1
        now = self.inbox.now
        self.rows.append(Row(self.head, sender, envelope_id, size, now, now + 1000 * min(ttl, longest)))
        return Stored(self.head, duplicate=False)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        assert self.inbox.append(row.sender, row.envelope_id) == Stored(row.seq, duplicate=True)

    @rule(bounds=st.lists(st.integers(1, 14), max_size=6, unique=True))
    def ack(self, bounds: list[int]) -> None:
        bounds = sorted(bounds)[: len(bounds) // 2 * 2]
        ranges = [(first, last) for first, last in zip(bounds[::2], bounds[1::2], strict=True)]
        if not ranges:
            return
        expected = ranges[-1][1] <= self.head
        assert self.inbox.ack(self.epoch, *ranges) is expected
        for row in self.rows:
            if expected and any(first <= row.seq <= last for first, last in ranges):
                row.state = ACKED

    @rule(epoch_off=st.sampled_from([-1, 1]), last=st.integers(1, 40))
    def ack_in_another_epoch(self, epoch_off: int, last: int) -> None:
        assert not self.inbox.ack(self.epoch + epoch_off, (1, last))

    @rule(milliseconds=st.sampled_from([999, 1_000, 60_000, DAY_MS, 30 * DAY_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.inbox.now += milliseconds

    @rule()
    def expire(self) -> None:
        expire(self.inbox.mailbox, self.inbox.connection, self.inbox.now)
        for row in self.rows:
            if row.state == STORED and row.expires <= self.inbox.now:
                row.state = EXPIRED
        notices = [row for row in self.rows if row.state == EXPIRED]
        for row in notices[: max(0, len(notices) - 3)]:
            row.state = ACKED
            self.dropped_through = max(self.dropped_through, row.seq)

    @rule()
    def purge(self) -> None:
        purge(self.inbox.mailbox, self.inbox.connection, self.inbox.now)
        limit = self.inbox.now - 45 * DAY_MS
        gone = [row for row in self.rows if row.created <= limit and row.state != STORED]
        self.dropped_through = max([self.dropped_through, *(row.seq for row in gone if row.state == EXPIRED)])
        self.rows = [row for row in self.rows if row not in gone]

    @rule(beyond=st.integers(-5, 5))
    def hello(self, beyond: int) -> None:
        watermark = max(0, self.head + beyond)
        state = self.inbox.state(self.epoch, watermark)
        if watermark > self.head:
            assert state.epoch > self.epoch
            self.epoch = state.epoch
        assert (state.epoch, state.head_seq) == (self.epoch, self.head)
        assert state.dropped_through == self.dropped_through
        unacked = [row.seq for row in self.rows if row.state != ACKED]
        assert state.settled_through == min(unacked, default=self.head + 1) - 1

    @rule(budget=st.sampled_from([EVERYTHING, Budget(1, 2_000), Budget(3, 2_500)]))
    def everything_unacked_is_delivered_once(self, budget: Budget) -> None:
        delivered = self.inbox.drain(budget)
        now = self.inbox.now
        expected = {
            row.seq: (row.sender, row.envelope_id, row.state == STORED and row.expires > now)
            for row in self.rows
            if row.state != ACKED
        }
        assert len(delivered) == len(expected)
        assert expected == {
            row.seq: (row.sender, int.from_bytes(row.envelope_id.raw), row.envelope is not None) for row in delivered
        }

    @invariant()
    def the_quota_counts_what_is_there(self) -> None:
        tables, connection = self.inbox.mailbox.tables, self.inbox.connection
        held = [row for row in self.rows if row.state == STORED]
        inbox = connection.execute(tables.inboxes.select()).one()
        assert (inbox.envelopes, inbox.bytes) == (len(held), sum(row.size for row in held))
        assert inbox.dropped == sum(row.state == EXPIRED for row in self.rows)
        for sender in connection.execute(tables.senders.select()):
            own = [row.size for row in held if row.sender == address(sender.user_id, sender.device_id[0])]
            assert (sender.envelopes, sender.bytes) == (len(own), sum(own))

    @invariant()
    def sequence_numbers_have_no_holes(self) -> None:
        stored = {row.seq: row.state for row in self.inbox.rows()}
        assert stored == {row.seq: row.state for row in self.rows}
        assert all((row.body is None) == (row.state != STORED) for row in self.inbox.rows())


TestMailbox = MailboxMachine.TestCase
TestMailbox.settings = settings(max_examples=60, stateful_step_count=40)


class MailboxMachineOnPostgreSql(MailboxMachine):
    def url(self) -> str | None:
        return postgresql().new_database()


TestMailboxOnPostgreSql = MailboxMachineOnPostgreSql.TestCase
TestMailboxOnPostgreSql.settings = settings(max_examples=15, stateful_step_count=40)
