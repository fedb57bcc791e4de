"""Attacks on the mailbox's time: a device with a large inbox asks for what costs the server most.

What a statement costs is counted in steps of SQLite's machine, which are the same on every computer.
"""

import sqlite3
from collections.abc import Callable

import pytest
from sqlalchemy import event

from tests.contract.mailbox_fixture import Inbox, open_inbox
from tests.contract.relay_world import START, address
from transport_adapters.server.lanes import Budget, Schedule

ALICE = address("alice")
ONE = Budget(messages=1, bytes=1 << 20)
MANY = 1_000


def filled(inbox: Inbox, number: int) -> Inbox:
    for name in range(1, number + 1):
        inbox.append(ALICE, name)
    return inbox


def steps(inbox: Inbox, work: Callable[[Inbox], object]) -> int:
    """Count what SQLite does in `work`."""
    driver = inbox.connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    driver.set_progress_handler(count, 1)
    try:
        work(inbox)
    finally:
        driver.set_progress_handler(None, 1)
    return taken


def ack_ends(inbox: Inbox) -> None:
    head = inbox.state().head_seq
    assert inbox.ack(START, (1, 1), (head, head))


def hello(inbox: Inbox) -> None:
    inbox.state()


@pytest.mark.parametrize("work", [hello, ack_ends])
def test_neither_hello_nor_an_ack_costs_more_with_a_thousand_tombstones(work: Callable[[Inbox], object]) -> None:
    costs = []
    for number in (10, MANY):
        with open_inbox() as inbox:
            filled(inbox, number).ack(START, (1, number))
            costs.append(steps(inbox, work))
    assert costs[1] <= costs[0] + 50


def test_an_ack_of_both_ends_again_and_again_does_not_read_what_lies_between() -> None:
    costs = []
    for number in (10, MANY):
        with open_inbox() as inbox:
            ack_ends(filled(inbox, number))
            costs.append(steps(inbox, ack_ends))
    assert costs[1] <= costs[0] + 50


def test_credit_for_one_message_at_a_time_does_not_read_the_whole_backlog_each_time() -> None:
    with open_inbox() as inbox:
        schedule, statements = Schedule(), []
        event.listen(inbox.connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
        filled(inbox, MANY)
        for _ in range(200):
            assert len(inbox.read(schedule, ONE)) == 1
    assert sum("GROUP BY" in each for each in statements) <= 10
