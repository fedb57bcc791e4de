"""Exports made by somebody who knows the code, or by a device that was wrong: what they cost, and what they spoil."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from e2ee import account_export, contact_sharing
from e2ee.errors import E2EEError
from e2ee.export_file import ExportReader, seal_pieces
from e2ee.history_book import FOREVER, EntryState, HistoryEntry
from e2ee.limits import MAX_TRUST_DECISIONS
from e2ee.messenger import Messenger
from e2ee.ports import Table, Transaction
from e2ee.primitives import aead
from e2ee.recovery import Purpose, RecoveryCode, export_header, export_key
from e2ee.stores import trust_records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.trust_records import Decision, TrustDecision
from e2ee.transfer import MAX_POSITION, ExportedMessage, ExportPayload
from e2ee.wire.codec import Writer
from e2ee.wire.contacts import DecisionEntry, LinkedContacts
from e2ee.wire.content import encode_application
from e2ee.wire.identifiers import MessageId, UserId
from e2ee.wire.public_keys import AccountKey
from tests.world import Device, World, talk

CODE = RecoveryCode(bytes(range(20)))
ALICE, BOB = UserId("alice"), UserId("bob")


@pytest.fixture
def pair() -> tuple[Device, Device]:
    """Alice and bob, who keep a history and have said something."""
    world = World("hostile export")
    alice, bob = (world.device(user, one_time_prekeys=False) for user in (ALICE, BOB))
    for device in (alice, bob):
        device.messenger.history.set_retention(FOREVER)
    talk(alice, bob)
    return alice, bob


def exported(device: Device) -> bytes:
    return b"".join(device.messenger.backup.export(CODE))


def opened(export: bytes) -> tuple[ExportPayload, list[ExportedMessage]]:
    reader = ExportReader(export, CODE)
    return reader.payload, [message for chunk in reader.messages() for message in chunk]


def sealed(payload: ExportPayload, *chunks: bytes) -> bytes:
    numbered = [(chunk, at == len(chunks)) for at, chunk in enumerate(chunks, 1)]
    return b"".join(seal_pieces(CODE, ALICE, payload, numbered, bytes(12)))


def encoded(messages: list[ExportedMessage]) -> bytes:
    writer = Writer()
    for message in messages:
        message.encode_into(writer)
    return writer.finish()


def merge(device: Device, export: bytes) -> int:
    return sum(step.messages for step in device.messenger.backup.merge(export, CODE))


def shown(device: Device) -> list[HistoryEntry]:
    return device.messenger.history.messages(BOB, limit=1000)


def texts(device: Device) -> list[bytes | str | None]:
    return [entry.data for entry in shown(device)]


def say(sender: Device, recipient: Device, *lines: str) -> None:
    for text in lines:
        sender.send(recipient, text)
    sender.world.deliver()


# --- times of a clock that was wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["alice", "bob"])
def test_what_was_written_in_the_future_by_an_export_does_not_disturb_the_order_of_what_follows(
    pair: tuple[Device, Device], author: str
) -> None:
    alice, bob = pair
    payload, messages = opened(exported(alice))
    newest = next(each for each in reversed(messages) if each.author == author)
    alice.world.wait(1000)
    wrong = replace(newest, message_id=MessageId(bytes(16)), written_at=(1 << 63) - 1)
    wrong = replace(wrong, position=newest.position + (500 << 16))
    assert merge(alice, sealed(payload, encoded([wrong]))) == 1
    before = texts(alice)
    for number in range(3):
        alice.world.wait(1000)
        say(alice, bob, f"alice {number}")
        say(bob, alice, f"bob {number}")
    assert texts(alice) == [*before, *(f"{name} {number}" for number in range(3) for name in ("alice", "bob"))]


def test_an_export_of_a_history_whose_positions_are_used_up_can_still_be_opened_in_its_order(
    pair: tuple[Device, Device],
) -> None:
    alice, bob = pair
    payload, messages = opened(exported(alice))
    last = replace(messages[0], message_id=MessageId(bytes(16)), position=MAX_POSITION)
    assert merge(alice, sealed(payload, encoded([last]))) == 1
    for number in range(70):
        say(bob, alice, f"after {number}")
    again = Messenger.recover(MemoryStore(), exported(alice), CODE, clock=alice.clock)
    assert [entry.data for entry in again.history.messages(BOB, limit=1000)] == texts(alice)


# --- what it costs -------------------------------------------------------------------------------------------


class Counting:
    """A transaction that counts the scans of a table, and what is put there."""

    def __init__(self, inside: Transaction, table: Table) -> None:
        self._inside, self._table, self.scans, self.puts = inside, table, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inside, name)

    def scan(self, table: Table, *arguments: Any, **options: Any) -> Any:
        self.scans += table is self._table
        return self._inside.scan(table, *arguments, **options)

    def put(self, table: Table, *arguments: Any, **options: Any) -> None:
        self.puts += table is self._table
        self._inside.put(table, *arguments, **options)


class Walked(tuple[DecisionEntry, ...]):
    """A tuple that counts how often it is gone through."""

    walks = 0

    def __iter__(self) -> Iterator[DecisionEntry]:
        Walked.walks += 1
        return super().__iter__()


def test_many_contacts_with_many_decisions_are_judged_in_linear_time(pair: tuple[Device, Device]) -> None:
    """A file of 64 MiB has room for 100,000 contacts and as many closed keys: the square of it takes days."""
    alice, _ = pair
    for number in range(5):
        alice.meet(alice.world.device(f"user{number}", one_time_prekeys=False))
    contacts = opened(exported(alice))[0].contacts
    random = Random(1)
    decisions = Walked(
        DecisionEntry(each.user_id, Decision.KEY_CLOSED, AccountKey(random.randbytes(32)), at)
        for each in contacts
        for at in range(20)
    )
    Walked.walks = 0
    with alice.store.write() as tx:
        counting: Any = Counting(tx, Table.TRUST_DECISIONS)
        contact_sharing.believe(counting, ALICE, LinkedContacts(0, contacts, decisions), alice.clock())
    assert counting.scans <= 3 * len(contacts)
    assert Walked.walks == 1


def of_bob(payload: ExportPayload, *lines: tuple[int, AccountKey, int]) -> ExportPayload:
    return replace(payload, decisions=tuple(DecisionEntry(BOB, *line) for line in lines))


def key(number: int) -> AccountKey:
    return AccountKey(bytes(28) + number.to_bytes(4, "big"))


def restored(payload: ExportPayload) -> tuple[Counting, list[TrustDecision]]:
    """Put contacts and decisions into an empty store; return what that took, and the history of bob."""
    counting: Any = None
    with MemoryStore().write() as tx:
        counting = Counting(tx, Table.TRUST_DECISIONS)
        account_export.restore(counting, ALICE, payload)
        scans, history = counting.scans, trust_records.decisions(tx, BOB)
    counting.scans = scans
    return counting, history


def test_a_history_of_any_length_is_restored_without_being_read_and_within_its_bound(
    pair: tuple[Device, Device],
) -> None:
    """A file of 64 MiB has room for 1,500,000 lines of one contact. None of these may go once it is there."""
    payload = opened(exported(pair[0]))[0]
    pinned = payload.contacts[0].account_key
    closed = [(Decision.KEY_CLOSED, key(at), at) for at in range(300)]
    ever_earlier = [(Decision.PINNED, pinned, 10_000 - at) for at in range(300)]
    for lines in (closed, ever_earlier, closed + ever_earlier):
        work, history = restored(of_bob(payload, *lines))
        assert work.scans == 0
        assert work.puts == len(history) <= MAX_TRUST_DECISIONS


def test_of_a_history_beyond_its_bound_what_counts_is_restored_in_its_order(pair: tuple[Device, Device]) -> None:
    payload = opened(exported(pair[0]))[0]
    pinned = payload.contacts[0].account_key
    closed = [(Decision.KEY_CLOSED, key(at), at) for at in range(100)]
    counts = [
        (Decision.PINNED, pinned, 1),
        (Decision.VERIFIED, pinned, 900),
        (Decision.CHANGE_ACCEPTED, pinned, 2),
        (Decision.VERIFICATION_WITHDRAWN, pinned, 3),
    ]
    declined = [(Decision.CHANGE_DECLINED, key(at), at) for at in range(1000, 1100)]
    seen = [(Decision.CHANGE_SEEN, key(at), at) for at in range(1000, 1200)]
    _, history = restored(of_bob(payload, *counts, *closed, *declined, *seen))
    kept = [*counts[:3], *closed[:64], *declined[-61:]]
    assert [(each.decision, each.key, each.at) for each in history] == kept


def test_lines_that_say_the_same_and_lines_about_nobody_are_not_restored(pair: tuple[Device, Device]) -> None:
    payload, messages = opened(exported(pair[0]))
    line = (Decision.KEY_CLOSED, key(1), 1)
    nobody = DecisionEntry(UserId("nobody"), *line)
    many = replace(payload, decisions=(*[DecisionEntry(BOB, *line)] * 2000, nobody))
    again = Messenger.recover(MemoryStore(), sealed(many, encoded(messages)), CODE)
    assert [(each.user_id, each.key) for each in again.contact_book.decisions()] == [(BOB, key(1))]


# --- contacts that are told of -------------------------------------------------------------------------------


def test_who_takes_an_export_in_is_told_of_contacts_whose_lists_contradict_each_other(
    pair: tuple[Device, Device],
) -> None:
    alice, _ = pair
    payload, messages = opened(exported(alice))
    forked = replace(payload, contacts=tuple(replace(each, forked=True) for each in payload.contacts))
    steps = list(alice.messenger.backup.merge(sealed(forked, encoded(messages)), CODE))
    assert steps[0].forked == (BOB,)
    contact = alice.messenger.contact(BOB)
    assert contact is not None
    assert contact.forked
    again = list(alice.messenger.backup.merge(sealed(forked, encoded(messages)), CODE))
    assert again[0].forked == (), "that is known"


# --- any field, any value ------------------------------------------------------------------------------------


@contextmanager
def harmless(device: Device) -> Iterator[None]:
    """A refusal changes nothing; what is accepted leaves a history that counts right and can be exported."""
    before = device.snapshot()
    try:
        yield
    except E2EEError:
        assert device.snapshot() == before
        return
    book = device.messenger.history
    for each in book.conversations():
        entries = book.messages(each.peer, each.conversation, limit=1000)
        assert len({entry.position for entry in entries}) == len(entries)
        assert all(entry.data is not None or entry.kind != 1 for entry in entries)
        assert each.unread == len(book.unread(each.peer, each.conversation))
        assert each.unread == sum(e.author == each.peer and e.state is EntryState.NEW for e in entries)
    ExportReader(exported(device), CODE).check_history()


INTERESTING = (b"\0", b"\x01", b"\x7f", b"\xff")


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with one place changed: a bit, a few bytes at a limit, something cut out or doubled."""
    at, length = draw(st.integers(0, len(data) - 1)), draw(st.sampled_from((1, 2, 4, 8, 32)))
    rest, some = data[at + length :], data[at : at + length]
    change = draw(st.integers(0, 3))
    if change == 0:
        return data[:at] + bytes((data[at] ^ 1 << draw(st.integers(0, 7)),)) + data[at + 1 :]
    if change == 1:
        return data[:at] + draw(st.sampled_from(INTERESTING)) + draw(st.sampled_from(INTERESTING)) * (length - 1) + rest
    return data[:at] + (some * 2 if change == 2 else b"") + rest


@pytest.fixture(scope="module")
def template() -> tuple[Device, ExportPayload, bytes]:
    world = World("any field")
    alice, bob, carol = (world.device(user, one_time_prekeys=False) for user in (ALICE, BOB, "carol"))
    alice.messenger.history.set_retention(FOREVER)
    talk(alice, bob)
    alice.meet(carol)
    alice.messenger.contact_book.compare(BOB, alice.messenger.contact_book.safety_number(BOB))
    payload, messages = opened(exported(alice))
    unknown = replace(messages[0], message_id=MessageId(bytes(16)), kind=200, body=b"of a later release")
    note = replace(messages[0], peer=ALICE, author=ALICE, body=encode_application("a note"), state=EntryState.READ)
    alice.messenger.history.delete_conversation(BOB)
    return alice, payload, encoded([*messages, unknown, note])


def copied(device: Device) -> Device:
    store = MemoryStore()
    with store.write() as tx:
        for table, rows in device.snapshot().items():
            for row in rows:
                tx.put(table, row.key, row.value, group=row.group, order=row.order)
    return Device(device.world, store, Messenger.open(store, clock=device.clock), one_time_prekeys=False)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_message_changed_in_any_field_under_the_right_code_is_refused_or_harmless(
    template: tuple[Device, ExportPayload, bytes], data: st.DataObject
) -> None:
    original, payload, chunk = template
    alice = copied(original)
    with harmless(alice):
        merge(alice, sealed(payload, data.draw(changed(chunk))))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_account_changed_in_any_field_under_the_right_code_is_refused_or_harmless(
    template: tuple[Device, ExportPayload, bytes], data: st.DataObject
) -> None:
    original, payload, chunk = template
    alice, store = copied(original), MemoryStore()
    header = export_header(2, ALICE, payload.account_key_pair.public)
    account = aead.seal(export_key(CODE, Purpose.EXPORT), bytes(12), data.draw(changed(payload.encode())), header)
    at = len(header) + 12
    export = header + bytes(12) + Writer().bytes32(account).finish() + sealed(payload, chunk)[at + 4 + len(account) :]
    with harmless(alice):
        merge(alice, export)
    try:
        Messenger.recover(store, export, CODE)
    except E2EEError:
        with store.read() as tx:
            assert all(tx.count(table) == 0 for table in Table), "half an account"


def test_a_kind_that_a_later_release_knows_is_kept_and_exported(template: tuple[Device, ExportPayload, bytes]) -> None:
    original, payload, chunk = template
    alice = copied(original)
    merge(alice, sealed(payload, chunk))
    kept = alice.messenger.history.message(ALICE, MessageId(bytes(16)))
    assert kept is not None
    assert (kept.kind, kept.data) == (200, None)
    assert MessageId(bytes(16)) in {each.message_id for each in opened(exported(alice))[1]}
