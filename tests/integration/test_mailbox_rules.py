"""Single rules of the mailbox, each by a short history."""

import pytest

from e2ee.limits import DAY_MS
from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceId, UserId
from tests.contract.mailbox_fixture import Inbox, open_inbox
from tests.contract.relay_world import START, address
from tests.databases import each_database  # noqa: F401 - a fixture
from transport_adapters.server.ports import OK, SendCheck, StaleList, Unavailable
from transport_adapters.server.posting import Full, Stored
from transport_adapters.server.retention import BATCH, expire, purge
from transport_adapters.server.settings import MailboxSettings

ALICE = address("alice")
STALE = StaleList(UserId("bob"), 7, (DeviceId(bytes(16)),))


def fill(inbox: Inbox, count: int, ttl: int = 3600) -> None:
    for n in range(1, count + 1):
        assert inbox.append(ALICE, n, ttl=ttl) == Stored(n, duplicate=False)


def waiting(inbox: Inbox) -> list[int]:
    return [row.seq for row in inbox.drain()]


def test_an_ack_leaves_what_lies_between_its_ranges() -> None:
    with open_inbox() as inbox:
        fill(inbox, 9)
        assert inbox.ack(inbox.state().epoch, (2, 3), (5, 5), (8, 9))
        assert waiting(inbox) == [1, 4, 6, 7]


def test_an_ack_deletes_the_ciphertext() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1, body=b"ciphertext")
        inbox.ack(inbox.state().epoch, (1, 1))
        assert [row.body for row in inbox.rows()] == [None]


def test_an_ack_of_many_rows_at_once() -> None:
    with open_inbox() as inbox:
        fill(inbox, 1_203)
        assert inbox.ack(inbox.state().epoch, (1, 1_203))
        assert waiting(inbox) == []


def test_an_ack_out_of_order_does_not_lower_the_highest() -> None:
    with open_inbox() as inbox:
        fill(inbox, 3)
        inbox.ack(inbox.state().epoch, (3, 3))
        inbox.ack(inbox.state().epoch, (1, 1))
        assert inbox.state().acked_seq == 3


def test_the_highest_ack_of_an_older_epoch_does_not_count_in_the_new_one() -> None:
    with open_inbox() as inbox:
        fill(inbox, 3)
        inbox.ack(inbox.state().epoch, (3, 3))
        epoch = inbox.state(inbox.state().epoch, 99).epoch
        assert inbox.ack(epoch, (1, 1))
        assert (inbox.state().acked_epoch, inbox.state().acked_seq) == (epoch, 1)


def test_a_new_epoch_is_later_than_every_one_before() -> None:
    with open_inbox() as inbox:
        epochs = [inbox.state().epoch]
        for _ in range(3):
            epochs.append(inbox.state(epochs[-1], 1).epoch)
        assert epochs == sorted(set(epochs))


def test_an_inbox_made_anew_has_another_epoch() -> None:
    with open_inbox() as inbox:
        before = inbox.state().epoch
        inbox.connection.execute(inbox.mailbox.tables.inboxes.delete())
        inbox.mailbox.create_inbox(inbox.connection, inbox.owner, START + 1)
        assert inbox.state().epoch != before


def test_making_an_inbox_again_changes_nothing() -> None:
    with open_inbox() as inbox:
        fill(inbox, 1)
        before = inbox.state()
        inbox.mailbox.create_inbox(inbox.connection, inbox.owner, START + 1)
        assert inbox.state() == before


def test_a_retry_gets_the_first_result_although_the_lists_have_changed() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1)
        assert inbox.append(ALICE, 1, check=STALE) == Stored(1, duplicate=True)


def test_a_retry_gets_the_first_result_although_the_inbox_is_full() -> None:
    with open_inbox(MailboxSettings(max_envelopes=2)) as inbox:
        inbox.append(ALICE, 1)
        inbox.append(address("carol"), 2)
        assert inbox.append(address("carol"), 3) is Full.INBOX
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=True)


def test_the_same_envelope_id_of_two_senders_names_two_envelopes() -> None:
    with open_inbox() as inbox:
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=False)
        assert inbox.append(address("alice", 2), 1) == Stored(2, duplicate=False)


def test_what_the_check_refuses_takes_no_number_and_counts_nowhere() -> None:
    with open_inbox() as inbox:
        before = inbox.state()
        assert inbox.append(ALICE, 1, check=STALE) == STALE
        assert inbox.append(ALICE, 1, check=Unavailable()) == Unavailable()
        assert inbox.state() == before
        assert inbox.mailbox.hello(inbox.connection, ALICE, 0, 0, START) is None
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=False)


@pytest.mark.parametrize(("check", "expected"), [(OK, Unavailable()), (STALE, STALE)])
def test_a_device_without_an_inbox_is_unavailable_unless_the_list_is_stale(
    check: SendCheck, expected: StaleList | Unavailable
) -> None:
    with open_inbox() as inbox:
        inbox.owner = address("bob", 2)
        assert inbox.append(ALICE, 1, check=check) == expected


def test_the_senders_counter_only_rises_and_a_retry_counts() -> None:
    with open_inbox() as inbox:
        inbox.mailbox.create_inbox(inbox.connection, ALICE, START)

        def highest() -> int:
            state = inbox.mailbox.hello(inbox.connection, ALICE, 0, 0, START)
            assert state is not None
            return state.accepted_counter

        assert highest() == 0
        inbox.counter = 8
        inbox.append(ALICE, 1)
        assert highest() == 9
        inbox.counter = 4
        inbox.append(ALICE, 2)
        assert highest() == 9
        inbox.counter = 19
        inbox.append(ALICE, 1)
        assert highest() == 20


def test_half_of_the_bytes_is_what_one_user_gets() -> None:
    with open_inbox(MailboxSettings(max_bytes=2_000)) as inbox:
        assert inbox.append(ALICE, 1, body=bytes(900)) == Stored(1, duplicate=False)
        assert inbox.append(address("alice", 2), 2, body=bytes(100)) is Full.SENDER
        assert inbox.append(address("carol"), 3, body=bytes(100)) == Stored(2, duplicate=False)


def test_the_urgent_lane_expires_within_a_minute() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1, lane=Lane.CONTROL, ttl=3600)
        inbox.append(ALICE, 2, lane=Lane.CONTROL, ttl=5)
        assert [row.expires_at - START for row in inbox.rows()] == [60_000, 5_000]


def test_expiring_goes_on_until_nothing_is_due() -> None:
    with open_inbox() as inbox:
        fill(inbox, BATCH + 1, ttl=1)
        inbox.now += 1_000
        assert expire(inbox.mailbox, inbox.connection, inbox.now) == BATCH
        assert expire(inbox.mailbox, inbox.connection, inbox.now) == 1
        assert expire(inbox.mailbox, inbox.connection, inbox.now) == 0


def test_an_expired_envelope_is_still_recognised() -> None:
    with open_inbox() as inbox:
        fill(inbox, 1, ttl=1)
        inbox.now += 1_000
        expire(inbox.mailbox, inbox.connection, inbox.now)
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=True)
        inbox.ack(inbox.state().epoch, (1, 1))
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=True)


def test_notices_beyond_their_number_go_oldest_first_and_are_named() -> None:
    with open_inbox(MailboxSettings(max_dropped=2)) as inbox:
        fill(inbox, 5, ttl=1)
        inbox.now += 1_000
        expire(inbox.mailbox, inbox.connection, inbox.now)
        assert waiting(inbox) == [4, 5]
        assert inbox.state().dropped_through == 3
        assert inbox.append(ALICE, 1) == Stored(1, duplicate=True)


def test_purging_waits_for_45_days_and_names_what_was_never_delivered() -> None:
    with open_inbox() as inbox:
        fill(inbox, 3, ttl=1)
        inbox.ack(inbox.state().epoch, (3, 3))
        inbox.now += 45 * DAY_MS - 1
        expire(inbox.mailbox, inbox.connection, inbox.now)
        assert purge(inbox.mailbox, inbox.connection, inbox.now) == 0
        inbox.now += 1
        assert purge(inbox.mailbox, inbox.connection, inbox.now) == 3
        assert inbox.rows() == []
        assert (inbox.state().head_seq, inbox.state().dropped_through) == (3, 2)


def test_purging_leaves_what_was_not_marked_as_expired_yet() -> None:
    with open_inbox() as inbox:
        fill(inbox, 1, ttl=1)
        inbox.now += 60 * DAY_MS
        assert purge(inbox.mailbox, inbox.connection, inbox.now) == 0
        assert waiting(inbox) == [1]


def test_a_posted_envelope_is_kept_byte_for_byte() -> None:
    with open_inbox() as inbox:
        inbox.append(ALICE, 1, body=bytes(range(256)))
        (row,) = inbox.drain()
        assert row.envelope is not None
        assert row.envelope.endswith(bytes(range(256)))
