"""Exports with the history: what comes back, what is doubled (nothing), what a changed file does (nothing)."""

import io
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from e2ee import export_file, history_export
from e2ee.errors import (
    AccountKeyChangedError,
    E2EEError,
    MalformedMessageError,
    StoreUnavailableError,
    UnsupportedVersionError,
    WrongRecoveryCodeError,
)
from e2ee.export_file import ExportReader
from e2ee.history_book import FOREVER, EntryState, HistoryEntry
from e2ee.limits import DAY_MS, MAX_HISTORY_CHUNK
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.recovery import Purpose, RecoveryCode
from e2ee.stores.memory import MemoryStore
from e2ee.transfer import ExportedMessage, HistorySection
from e2ee.wire.content import ContentKind, ReceiptType, encode_application
from e2ee.wire.identifiers import ConversationId, DeviceId, MessageId, UserId
from tests.breaking_store import BreakingStore
from tests.world import Device, World, flip, talk

CODE = RecoveryCode(bytes(range(20)))
ALICE, BOB = UserId("alice"), UserId("bob")


@pytest.fixture
def pair() -> tuple[Device, Device]:
    """Alice and bob, who keep a history and have said something."""
    world = World("history export")
    alice, bob = (world.device(user, one_time_prekeys=False) for user in (ALICE, BOB))
    for device in (alice, bob):
        device.messenger.history.set_retention(FOREVER)
    talk(alice, bob)
    for number in range(3):
        world.wait(1000)
        say(alice, bob, f"from alice {number}")
        say(bob, alice, f"from bob {number}")
    return alice, bob


def say(sender: Device, recipient: Device, text: str) -> None:
    sender.send(recipient, text)
    sender.world.deliver()


def exported(device: Device) -> bytes:
    return b"".join(device.messenger.backup.export(CODE))


def recovered(export: bytes, world: World) -> Device:
    """A new device of an export, which has not taken its place in the list yet."""
    store = MemoryStore()
    messenger = Messenger.recover(store, io.BytesIO(export), CODE, rng=world.random.randbytes, clock=world.clock)
    return Device(world, store, messenger, one_time_prekeys=False)


def shown(device: Device, peer: UserId = BOB) -> list[HistoryEntry]:
    return device.messenger.history.messages(peer, limit=1000)


def texts(device: Device, peer: UserId = BOB) -> list[bytes | str | None]:
    return [entry.data for entry in shown(device, peer)]


def merge(device: Device, export: bytes) -> int:
    return sum(step.messages for step in device.messenger.backup.merge(io.BytesIO(export), CODE))


def fill(device: Device, number: int, size: int = 0) -> None:
    """Put many messages into the history."""
    messages = [
        ExportedMessage(
            MessageId(at.to_bytes(16, "big")),
            BOB,
            device.address.device_id,
            BOB,
            ConversationId("many"),
            ContentKind.APPLICATION,
            at,
            at,
            at,
            EntryState.READ,
            (at + 1) << 16,
            encode_application(b"x" * size),
        )
        for at in range(number)
    ]
    with device.store.write() as tx:
        history_export.merge(tx, device.user_id, messages, device.clock())


def test_the_history_comes_back_as_it_was_with_its_receipts_and_what_is_unread(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    ids = [entry.message_id for entry in shown(alice) if entry.author == ALICE]
    bob.messenger.send_receipt(ALICE, ReceiptType.READ, (ids[0],))
    bob.messenger.send_receipt(ALICE, ReceiptType.DELIVERED, (ids[1],))
    bob.post()
    alice.world.deliver()
    alice.messenger.mark_read(BOB, [shown(alice)[1].message_id])
    again = recovered(exported(alice), alice.world)
    assert shown(again) == shown(alice)
    assert {entry.state for entry in shown(again)} == set(EntryState)
    assert again.messenger.history.retention() == FOREVER
    for device in (alice, again):
        assert device.messenger.history.unread(BOB) == alice.messenger.history.unread(BOB)
    before, after = (
        {(each.peer, each.unread, each.last) for each in device.messenger.history.conversations()}
        for device in (alice, again)
    )
    assert before == after


def test_taking_an_export_in_twice_doubles_nothing(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    export = exported(alice)
    before = alice.snapshot()
    assert merge(alice, export) == 0
    assert alice.snapshot() == before
    again = recovered(export, alice.world)
    assert merge(again, export) == 0
    assert shown(again) == shown(alice)


def test_what_was_said_since_and_what_comes_live_stand_in_order_with_what_is_taken_in(
    pair: tuple[Device, Device],
) -> None:
    alice, bob = pair
    old = exported(alice)
    everything = texts(alice)
    alice.messenger.history.delete_conversation(BOB)
    alice.world.wait(1000)
    say(bob, alice, "since 1")
    steps = alice.messenger.backup.merge(io.BytesIO(old), CODE)
    next(steps)
    say(alice, bob, "while it is taken in")
    assert sum(step.messages for step in steps) == len(everything)
    alice.world.wait(1000)
    say(bob, alice, "after")
    assert texts(alice) == [*everything, "since 1", "while it is taken in", "after"]
    assert alice.messenger.history.conversations()[0].unread == sum(e.author == BOB for e in shown(alice))


def test_a_message_that_is_here_and_in_the_export_knows_what_either_knew(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    old = exported(alice)
    unread = alice.messenger.history.unread(BOB)
    alice.messenger.mark_read(BOB, unread)
    read = exported(alice)
    merge(alice, old)
    assert alice.messenger.history.unread(BOB) == ()
    again = recovered(old, alice.world)
    assert again.messenger.history.unread(BOB) == unread
    merge(again, read)
    assert again.messenger.history.unread(BOB) == ()
    assert again.messenger.history.conversations()[0].unread == 0
    assert shown(again) == shown(alice)


def test_a_word_that_was_faster_than_its_message_counts_when_the_message_is_taken_in(
    pair: tuple[Device, Device],
) -> None:
    alice, bob = pair
    old = exported(alice)
    ids = [entry.message_id for entry in shown(alice) if entry.author == ALICE]
    alice.messenger.history.set_retention(0)
    with alice.store.write() as tx:
        for record in tx.scan(Table.HISTORY):
            tx.delete(Table.HISTORY, record.key)
    alice.messenger.history.set_retention(FOREVER)
    bob.messenger.send_receipt(ALICE, ReceiptType.READ, tuple(ids))
    bob.post()
    alice.world.deliver()
    merge(alice, old)
    assert {entry.state for entry in shown(alice) if entry.author == ALICE} == {EntryState.READ}


def test_two_messages_of_one_position_both_stay(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    first, *_ = history_export.pages(alice.store)
    twins = [replace(first[0], message_id=MessageId(bytes((at,)) * 16)) for at in range(200)]
    with alice.store.write() as tx:
        assert history_export.merge(tx, ALICE, twins, alice.clock()) == 200
    found = alice.messenger.history.messages(BOB, limit=1000)
    assert len({entry.position for entry in found}) == len(found) == 200 + len(first)


def test_a_device_that_keeps_no_history_takes_none_in_and_exports_none(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    export = exported(alice)
    alice.messenger.history.set_retention(0)
    assert merge(alice, export) == 0
    assert exported(alice)[:1] == b"\x01"
    assert recovered(exported(alice), alice.world).messenger.history.retention() == 0


def test_what_is_older_than_messages_are_kept_here_does_not_stay(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    export = exported(alice)
    alice.world.wait(DAY_MS)
    alice.messenger.history.set_retention(DAY_MS // 2)
    merge(alice, export)
    assert shown(alice) == []


def test_contacts_of_an_export_are_judged_as_the_word_of_another_device(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    book = alice.messenger.contact_book
    book.compare(BOB, book.safety_number(BOB))
    export = exported(alice)
    with alice.store.write() as tx:
        tx.delete(Table.CONTACTS, BOB.encode())
    steps = list(alice.messenger.backup.merge(export, CODE))
    assert steps[0].contacts == (BOB,)
    contact = alice.messenger.contact(BOB)
    assert contact is not None
    assert contact.verified


def test_an_export_of_somebody_else_or_of_before_a_reset_is_not_taken_in(pair: tuple[Device, Device]) -> None:
    alice, bob = pair
    with pytest.raises(AccountKeyChangedError):
        merge(bob, exported(alice))
    export = exported(alice)
    alice.messenger.account_reset.draft()
    alice.messenger.account_reset.accepted()
    before = alice.snapshot()
    with pytest.raises(AccountKeyChangedError):
        merge(alice, export)
    assert alice.snapshot() == before


# --- large ones, and changed ones ----------------------------------------------------------------------------


def parts(export: bytes) -> list[bytes]:
    """Take an export apart: what is before the chunks, then each chunk with its length."""
    at = 2 + export[1] + 32 + 12
    at += 4 + int.from_bytes(export[at : at + 4], "big")
    found = [export[:at]]
    while at < len(export):
        end = at + 4 + int.from_bytes(export[at : at + 4], "big")
        found.append(export[at:end])
        at = end
    return found


def test_a_large_history_is_written_and_read_in_chunks_of_bounded_size(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    fill(alice, 400, size=2000)
    pieces = list(alice.messenger.backup.export(CODE))
    assert pieces == parts(b"".join(pieces))
    assert len(pieces) > 10
    assert max(map(len, pieces[1:])) <= MAX_HISTORY_CHUNK + 20
    again = recovered(b"".join(pieces), alice.world)
    assert again.messenger.history.messages(BOB, ConversationId("many"), limit=1000) == (
        alice.messenger.history.messages(BOB, ConversationId("many"), limit=1000)
    )


def test_two_of_the_longest_messages_fit_in_a_chunk(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    fill(alice, 3, size=64 * 1024)
    assert len(texts(recovered(exported(alice), alice.world))) > 0
    assert len(recovered(exported(alice), alice.world).messenger.history.messages(BOB, ConversationId("many"))) == 3


@pytest.fixture
def many(pair: tuple[Device, Device]) -> tuple[Device, list[bytes]]:
    """Alice, and an export of hers with four chunks, taken apart."""
    alice, _ = pair
    fill(alice, 110, size=2000)
    found = parts(exported(alice))
    assert len(found) == 5
    return alice, found


def swapped(chunks: list[bytes]) -> list[bytes]:
    return [chunks[0], chunks[2], chunks[1], *chunks[3:]]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "without its last chunk": lambda parts: parts[:-1],
    "without any chunk": lambda parts: parts[:1],
    "without a chunk in the middle": lambda parts: [*parts[:2], *parts[3:]],
    "two chunks swapped": swapped,
    "a chunk twice": lambda parts: [*parts[:2], *parts[1:]],
    "the last chunk twice": lambda parts: [*parts, parts[-1]],
    "a chunk after the last": lambda parts: [*parts, parts[1]],
    "a byte behind the end": lambda parts: [*parts, b"\0"],
    "cut in the last chunk": lambda parts: [*parts[:-1], parts[-1][:-1]],
    "cut in the length of a chunk": lambda parts: [*parts[:2], parts[2][:3]],
    "a bit of a chunk": lambda parts: [*parts[:2], flip(parts[2], 300), *parts[3:]],
    "a chunk without bytes": lambda parts: [*parts[:1], bytes(4), *parts[1:]],
    "a chunk that is said to be too long": lambda parts: [parts[0], b"\xff" * 4 + parts[1][4:], *parts[2:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_export_that_was_changed_anywhere_is_refused_before_anything_is_taken_in(
    many: tuple[Device, list[bytes]], change: str
) -> None:
    alice, pieces = many
    export, store = b"".join(CHANGES[change](pieces)), MemoryStore()
    alice.messenger.history.delete_conversation(BOB, ConversationId("many"))  # so that anything taken in would show
    before = alice.snapshot()
    with pytest.raises((WrongRecoveryCodeError, MalformedMessageError)):
        merge(alice, export)
    assert alice.snapshot() == before
    with pytest.raises((WrongRecoveryCodeError, MalformedMessageError)):
        Messenger.recover(store, export, CODE)
    with store.read() as tx:
        assert all(tx.count(table) == 0 for table in Table)


def test_a_chunk_of_another_export_of_the_same_history_under_the_same_code_is_refused(
    many: tuple[Device, list[bytes]],
) -> None:
    alice, pieces = many
    other = parts(exported(alice))
    for mixed in ([*pieces[:2], *other[2:]], [pieces[0], *other[1:]]):
        with pytest.raises(WrongRecoveryCodeError):
            merge(alice, b"".join(mixed))


def test_every_flipped_bit_and_every_cut_is_refused(many: tuple[Device, list[bytes]]) -> None:
    alice, pieces = many
    export, random = b"".join(pieces), Random(5)
    for bit in random.sample(range(8 * len(export)), 60):
        with pytest.raises(E2EEError):
            merge(alice, flip(export, bit))
    for length in random.sample(range(len(export)), 40):
        with pytest.raises(E2EEError):
            merge(alice, export[:length])


def test_another_code_opens_nothing_and_a_history_is_no_business_of_the_server(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    export = exported(alice)
    with pytest.raises(WrongRecoveryCodeError):
        ExportReader(export, RecoveryCode(bytes(20)))
    with pytest.raises(UnsupportedVersionError):
        ExportReader(export, CODE, Purpose.RECOVERY)
    with pytest.raises(UnsupportedVersionError):
        ExportReader(b"\x03" + export[1:], CODE)
    for text in (b"from alice", b"bob"):
        assert text not in export


def test_who_knows_the_code_writes_no_message_that_is_none(pair: tuple[Device, Device]) -> None:
    """A file that somebody who knows the code made: it is refused like any malformed bytes."""
    alice, _ = pair
    page = next(iter(history_export.pages(alice.store)))
    payload = ExportReader(exported(alice), CODE).payload
    strange = {
        "a stranger's": replace(page[0], author=UserId("carol")),
        "a receipt": replace(page[0], kind=ContentKind.RECEIPT),
        "text that is none": replace(page[0], body=b"\x01\x80"),
        "a state": replace(page[0], state=3),
        "a position": replace(page[0], position=1 << 62),
    }
    for message in strange.values():
        pieces = export_file.write_export(CODE, ALICE, payload, (FOREVER, [[page[1], message]]), Random(1).randbytes)
        before = alice.snapshot()
        with pytest.raises(MalformedMessageError):
            merge(alice, b"".join(pieces))
        assert alice.snapshot() == before
    never = export_file.write_export(CODE, ALICE, payload, (0, []), Random(1).randbytes)
    with pytest.raises(MalformedMessageError):
        merge(alice, b"".join(never))


def test_a_history_key_redacts_itself_and_messages_do_not_show_what_they_say(pair: tuple[Device, Device]) -> None:
    alice, _ = pair
    payload = ExportReader(exported(alice), CODE).payload
    section = payload.section(1)
    assert section is not None
    assert section[:32].hex() not in repr(HistorySection.decode(section))
    assert "from alice" not in repr(next(iter(history_export.pages(alice.store))))


# --- interrupted, and in any order ---------------------------------------------------------------------------


def test_a_recovery_that_breaks_off_in_the_history_goes_on_with_an_import(many: tuple[Device, list[bytes]]) -> None:
    alice, pieces = many
    export, store = b"".join(pieces), BreakingStore()
    store.puts_left = 70
    with pytest.raises(StoreUnavailableError):
        Messenger.recover(store, export, CODE, clock=alice.clock)
    store.puts_left = None
    again = Device(alice.world, store, Messenger.open(store, clock=alice.clock), one_time_prekeys=False)
    assert again.messenger.registration.is_recovering()
    name = BOB, ConversationId("many")
    assert 0 < len(again.messenger.history.messages(*name, limit=1000)) < 110
    merge(again, export)
    assert again.messenger.history.messages(*name, limit=1000) == alice.messenger.history.messages(*name, limit=1000)
    assert shown(again) == shown(alice)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_messages_taken_in_in_any_order_and_any_number_of_times_are_the_same_history(data: st.DataObject) -> None:
    messages = [
        ExportedMessage(
            MessageId(bytes((at,)) * 16),
            data.draw(st.sampled_from((ALICE, BOB))),
            DeviceId(bytes(16)),
            BOB,
            ConversationId(data.draw(st.sampled_from(("", "team-7")))),
            ContentKind.APPLICATION,
            at,
            at,
            at,
            data.draw(st.sampled_from(EntryState)),
            (at + 1) << 16,
            encode_application(f"{at}"),
        )
        for at in range(data.draw(st.integers(1, 12)))
    ]
    histories = []
    for arrivals in (messages, data.draw(st.permutations(messages * 2))):
        store = MemoryStore()
        messenger = Messenger.create(store, ALICE)
        messenger.history.set_retention(FOREVER)
        for at in range(0, len(arrivals), 3):
            with store.write() as tx:
                history_export.merge(tx, ALICE, arrivals[at : at + 3], 12)
        book = messenger.history
        names = [(BOB, ConversationId(each)) for each in ("", "team-7")]
        histories.append([(book.messages(*name), book.unread(*name)) for name in names])
        for each in book.conversations():
            assert each.unread == len(book.unread(each.peer, each.conversation))
    assert histories[0] == histories[1]


def test_one_open_file_is_taken_in_twice_at_once(many: tuple[Device, list[bytes]]) -> None:
    alice, pieces = many
    everything = alice.messenger.history.messages(BOB, ConversationId("many"), limit=1000)
    alice.messenger.history.delete_conversation(BOB, ConversationId("many"))
    file = io.BytesIO(b"".join(pieces))
    merges = [alice.messenger.backup.merge(file, CODE) for _ in range(2)]
    assert sum(first.messages + second.messages for first, second in zip(*merges, strict=True)) == len(everything)
    assert alice.messenger.history.messages(BOB, ConversationId("many"), limit=1000) == everything
