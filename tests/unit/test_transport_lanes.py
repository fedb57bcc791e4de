"""In which order a backlog is sent."""

from contextlib import ExitStack
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.mailbox_fixture import Inbox, open_inbox
from tests.contract.relay_world import address
from transport_adapters.server import lanes
from transport_adapters.server.lanes import MAX_OVERTAKEN, OLDEST_EVERY, Budget, Schedule
from transport_adapters.server.pending import Pending

ALICE, CAROL = address("alice"), address("carol")


def fill(inbox: Inbox, *plan: tuple[DeviceAddress, Lane]) -> None:
    for n, (sender, lane) in enumerate(plan, 1):
        inbox.append(sender, n, lane=lane)


def overtaken(rows: list[Pending]) -> tuple[int, int]:
    """For one sender's rows in the order sent: most rows overtaken by one, and most rows that overtook one."""
    seqs = [row.seq for row in rows]
    overtakes = max(sum(later < seq for later in seqs[at:]) for at, seq in enumerate(seqs))
    overtaking = max(sum(earlier > seq for earlier in seqs[:at]) for at, seq in enumerate(seqs))
    return overtakes, overtaking


def test_lower_lanes_go_first_and_each_lane_keeps_its_order() -> None:
    with open_inbox() as inbox:
        fill(inbox, (ALICE, Lane.BULK), (ALICE, Lane.CHAT), (CAROL, Lane.CHAT), (CAROL, Lane.CONTROL))
        assert [row.seq for row in inbox.drain()] == [4, 2, 3, 1]


def test_one_sender_overtakes_itself_by_no_more_than_half_the_skip_limit() -> None:
    with open_inbox() as inbox:
        fill(inbox, *[(ALICE, Lane.BULK)] * 1_100, *[(ALICE, Lane.CHAT)] * 700)
        rows = inbox.drain()
        assert len(rows) == 1_800
        assert overtaken(rows) == (MAX_OVERTAKEN, MAX_OVERTAKEN)


def test_rows_acked_since_they_were_looked_at_do_not_hold_up_the_rest() -> None:
    with open_inbox() as inbox:
        fill(inbox, *[(ALICE, Lane.CHAT)] * 200)
        schedule, ten = Schedule(), Budget(10, 1 << 20)
        inbox.read(schedule, ten)
        inbox.ack(inbox.state().epoch, (1, 190))
        seqs: list[int] = []
        while rows := inbox.read(schedule, ten):
            seqs += [row.seq for row in rows]
        assert seqs == list(range(191, 201))


def test_rows_that_wait_for_one_acked_since_then_go() -> None:
    with open_inbox() as inbox:
        fill(inbox, *[(ALICE, Lane.BULK)] * 600, *[(ALICE, Lane.CHAT)] * 600)
        schedule, one = Schedule(), Budget(1, 1 << 20)
        inbox.read(schedule, one)
        inbox.ack(inbox.state().epoch, (1, 1_100))
        seqs: list[int] = []
        while rows := inbox.read(schedule, one):
            seqs += [row.seq for row in rows]
        assert seqs == list(range(1_101, 1_201))


def test_another_senders_backlog_does_not_hold_up_a_call() -> None:
    with open_inbox() as inbox:
        fill(inbox, *[(ALICE, Lane.BULK)] * 800, (CAROL, Lane.CONTROL))
        assert inbox.drain()[0].sender == CAROL


def test_bulk_keeps_moving_under_a_flow_of_chat() -> None:
    with open_inbox() as inbox:
        fill(inbox, *[(ALICE, Lane.BULK)] * 10, *[(CAROL, Lane.CHAT)] * 200)
        places = [at for at, row in enumerate(inbox.drain()) if row.sender == ALICE]
        assert places[0] < OLDEST_EVERY
        assert all(after - before <= OLDEST_EVERY for before, after in pairwise(places))


def test_a_row_that_does_not_fit_the_credit_waits_and_nothing_overtakes_it() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1, body=bytes(1_000))
        inbox.append(ALICE, 2)
        schedule = Schedule()
        assert inbox.read(schedule, Budget(10, 500)) == []
        assert [row.seq for row in inbox.read(schedule, Budget(10, 2_000))] == [1, 2]


def test_word_of_an_expired_envelope_costs_no_bytes() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1, body=bytes(1_000), ttl=1)
        inbox.now += 1_000
        assert [row.envelope for row in inbox.read(Schedule(), Budget(1, 0))] == [None]


def test_what_was_chosen_and_acked_before_it_was_read_is_left_out() -> None:
    with open_inbox() as inbox:
        fill(inbox, (ALICE, Lane.CHAT), (ALICE, Lane.CHAT))
        schedule = Schedule()
        assert inbox.read(schedule, Budget(0, 0)) == []  # looked at, not chosen
        inbox.ack(inbox.state().epoch, (1, 1))
        assert [row.seq for row in inbox.read(schedule)] == [2]


@settings(max_examples=60)
@given(
    plan=st.lists(st.tuples(st.sampled_from([ALICE, CAROL]), st.sampled_from(Lane)), min_size=1, max_size=40),
    cuts=st.lists(st.integers(1, 12), max_size=4),
    budget=st.integers(1, 7),
)
def test_every_row_is_sent_once_and_the_bounds_hold_over_reconnects(
    plan: list[tuple[DeviceAddress, Lane]], cuts: list[int], budget: int
) -> None:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(lanes, "MAX_OVERTAKEN", 3)
        patch.setattr(lanes, "LOOKAHEAD", 4)
        inbox = stack.enter_context(open_inbox())
        fill(inbox, *plan)
        epoch = inbox.state().epoch
        first_sent: list[Pending] = []
        for cut in [*cuts, len(plan)]:
            schedule, sent = Schedule(), list[Pending]()
            while len(sent) < cut and (rows := inbox.read(schedule, Budget(min(budget, cut - len(sent)), 1 << 40))):
                sent += rows
            assert len({row.seq for row in sent}) == len(sent)
            first_sent += [row for row in sent if row.seq not in {each.seq for each in first_sent}]
            for row in sent[::2]:  # half of it is acked before the connection breaks
                inbox.ack(epoch, (row.seq, row.seq))
        assert sorted(row.seq for row in first_sent) == list(range(1, len(plan) + 1))
        for sender in {sender for sender, _ in plan}:
            own = [row for row in first_sent if row.sender == sender]
            assert max(overtaken(own)) <= 3
            for lane in Lane:
                in_lane = [row.seq for row in own if plan[row.seq - 1][1] is lane]
                assert in_lane == sorted(in_lane)
