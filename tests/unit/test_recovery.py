"""Recovery codes and exports: what people type, what is in the file, what a hostile one does: nothing."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from e2ee.errors import (
    E2EEError,
    InvalidSignatureError,
    MalformedMessageError,
    WrongRecoveryCodeError,
)
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.primitives import aead
from e2ee.recovery import ExportFile, Purpose, RecoveryCode, export_key, seal_export
from e2ee.stores import records, trust_records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.trust_records import Decision, TrustPolicy
from e2ee.transfer import ExportPayload
from e2ee.wire.identifiers import UserId
from tests.world import Device, World, flip, talk

CODE = RecoveryCode(bytes(range(20)))


def pair() -> tuple[Device, Device]:
    world = World("recovery")
    alice, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    talk(alice, bob)
    alice.messenger.contact_book.compare(bob.user_id, alice.messenger.contact_book.safety_number(bob.user_id))
    return alice, bob


def opened(device: Device, export: bytes | None = None) -> ExportPayload:
    return ExportFile.decode(export or device.messenger.backup.without_history(CODE)).open(CODE)


def resealed(device: Device, **changes: object) -> bytes:
    payload = replace(opened(device), **changes)  # type: ignore[arg-type]  # names and types are the test's
    return seal_export(CODE, device.user_id, payload, Random(1).randbytes).encode()


def test_a_code_is_read_as_people_type_it() -> None:
    text = CODE.text()
    assert len(text) == 47
    for typed in (text, text.lower(), text.replace("-", ""), text.replace("-", " "), f"\n{text} "):
        assert RecoveryCode.parse(typed) == CODE


def test_a_mistyped_letter_is_noticed_wherever_it_is() -> None:
    text = CODE.text()
    for at, letter in enumerate(text):
        if letter != "-":
            with pytest.raises(MalformedMessageError):
                RecoveryCode.parse(text[:at] + ("A" if letter != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "A" * 40, "A" * 39, "ä" * 40, "1" * 40, "A" * 4096])
def test_what_is_no_code_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        RecoveryCode.parse(text)
    assert not text or text not in str(refused.value)


def test_a_code_shows_nowhere_but_in_its_text() -> None:
    assert repr(CODE) == str(CODE) == "<RecoveryCode redacted>"


def test_an_export_holds_account_contacts_and_decisions_and_no_session_or_prekey() -> None:
    alice, bob = pair()
    payload = opened(alice)
    assert payload.account_key_pair == alice.messenger.account.account_key_pair
    assert payload.device_list == alice.messenger.own_device_list().signed
    assert [(each.user_id, each.verified) for each in payload.contacts] == [(bob.user_id, True)]
    assert [each.decision for each in payload.decisions] == [Decision.PINNED, Decision.VERIFIED]
    with alice.store.read() as tx:
        secrets = [record.value for table in (Table.SESSIONS, Table.PREKEYS) for record in tx.scan(table)]
        device = records.load_account(tx)
    export = payload.encode()
    for secret in (*secrets, device.identity_key_pair.private.expose(), device.device_signing_key_pair.seed.expose()):
        assert secret not in export


def test_two_exports_of_one_account_differ_and_both_open() -> None:
    alice, _ = pair()
    first, second = (alice.messenger.backup.without_history(CODE) for _ in range(2))
    assert first != second
    assert opened(alice, first) == opened(alice, second)


def test_nobody_in_the_file_is_named_without_the_code() -> None:
    alice, bob = pair()
    export = alice.messenger.backup.without_history(CODE)
    assert b"bob" not in export
    assert bob.messenger.account.party.account_key.raw not in export


def test_what_was_exported_is_restored_on_a_new_device_and_nothing_else() -> None:
    alice, bob = pair()
    alice.messenger.contact_book.set_policy(TrustPolicy.VERIFIED_ONLY)
    store = MemoryStore()
    again = Messenger.recover(store, alice.messenger.backup.without_history(CODE), CODE, clock=alice.clock)
    assert again.address.user_id == alice.user_id
    assert again.address != alice.address
    assert again.account.account_key_pair == alice.messenger.account.account_key_pair
    assert again.account.identity_key_pair != alice.messenger.account.identity_key_pair
    before, restored = alice.messenger.contact(bob.user_id), again.contact(bob.user_id)
    assert before is not None
    assert restored == replace(before, queried_at=0, heard_seq=0)
    assert again.contact_book.policy() is TrustPolicy.VERIFIED_ONLY
    assert again.contact_book.decisions() == alice.messenger.contact_book.decisions()
    assert (again.registration.is_recovering(), again.registration.is_registered(), again.own_devices.is_listed()) == (
        True,
        False,
        False,
    )
    with store.read() as tx:
        assert all(tx.count(table) == 0 for table in (Table.SESSIONS, Table.PREKEYS, Table.OUTBOX, Table.SKIPPED_KEYS))


def test_a_closed_key_stays_closed_over_a_recovery() -> None:
    alice, bob = pair()
    closing = bob.messenger.account_reset.draft().closing
    alice.messenger.learn_device_lists(bob.user_id, [closing.signed])
    store = MemoryStore()
    Messenger.recover(store, alice.messenger.backup.without_history(CODE), CODE)
    with store.read() as tx:
        assert trust_records.was_closed(tx, bob.user_id, closing.content.account_key)


def test_the_next_list_holds_the_new_device_alone() -> None:
    alice, _ = pair()
    again = Messenger.recover(MemoryStore(), alice.messenger.backup.without_history(CODE), CODE, clock=alice.clock)
    drafted = again.own_devices.draft_alone()
    assert (drafted.content.seq, drafted.content.devices) == (2, (again.account.listed,))
    again.own_devices.learn([drafted.signed])
    assert again.own_devices.is_listed()


def test_another_code_and_every_flipped_bit_are_refused_and_the_store_stays_empty() -> None:
    alice, _ = pair()
    export, store = alice.messenger.backup.without_history(CODE), MemoryStore()
    with pytest.raises(WrongRecoveryCodeError):
        Messenger.recover(store, export, RecoveryCode(bytes(20)))
    for bit in Random(3).sample(range(8 * len(export)), 100):
        with pytest.raises(E2EEError):
            Messenger.recover(store, flip(export, bit), CODE)
    with store.read() as tx:
        assert all(tx.count(table) == 0 for table in Table)


def test_an_export_that_contradicts_itself_is_refused_as_a_whole() -> None:
    alice, bob = pair()
    payload, store = opened(alice), MemoryStore()
    contact = payload.contacts[0]
    strange = replace(contact, account_key=alice.messenger.account.party.account_key)
    own = replace(contact, user_id=alice.user_id, account_key=alice.messenger.account.party.account_key)
    contradictions: list[dict[str, Any]] = [
        {"device_list": bob.messenger.own_device_list().signed},
        {"contacts": (strange,)},
        {"contacts": (replace(own, device_list=alice.messenger.own_device_list().signed),)},
        {"contacts": (replace(contact, device_list=replace(contact.device_list, signature=bytes(64))),)},
    ]
    for changes in contradictions:
        with pytest.raises(InvalidSignatureError):
            Messenger.recover(store, resealed(alice, **changes), CODE)
    unknown: list[dict[str, Any]] = [
        {"policy": 9},
        {"decisions": (replace(payload.decisions[0], decision=99),)},
    ]
    for changes in unknown:
        with pytest.raises(MalformedMessageError):
            Messenger.recover(store, resealed(alice, **changes), CODE)
    with store.read() as tx:
        assert all(tx.count(table) == 0 for table in Table)


def test_key_list_and_contacts_of_an_export_are_each_checked_against_its_header() -> None:
    alice, bob = pair()
    payload, bobs = opened(alice), bob.messenger.account.account_key_pair
    under_bobs_key = replace(alice.messenger.account, account_key_pair=bobs).first_device_list(alice.world.now).signed
    file = seal_export(CODE, alice.user_id, replace(payload, account_key_pair=bobs), Random(1).randbytes)
    inner = replace(payload, device_list=under_bobs_key)
    resealed_inner = aead.seal(export_key(CODE, Purpose.EXPORT), file.nonce, inner.encode(), file._header())
    with pytest.raises(InvalidSignatureError, match="private key"):
        replace(file, sealed=resealed_inner).open(CODE)
    with pytest.raises(InvalidSignatureError, match="device list is another"):
        ExportFile.decode(resealed(alice, device_list=under_bobs_key)).open(CODE)
    strange = replace(payload.contacts[0], account_key=alice.messenger.account.party.account_key)
    with pytest.raises(InvalidSignatureError, match="contact"):
        ExportFile.decode(resealed(alice, contacts=(strange,))).open(CODE)


def test_what_the_server_keeps_names_nobody_and_is_no_export() -> None:
    alice, bob = pair()
    blob = alice.messenger.backup.for_server(CODE)
    with pytest.raises(WrongRecoveryCodeError):
        Messenger.recover(MemoryStore(), blob, CODE)
    again = Messenger.recover(MemoryStore(), blob, CODE, purpose=Purpose.RECOVERY)
    assert again.account.account_key_pair == alice.messenger.account.account_key_pair
    assert again.contact(bob.user_id) is None
    assert len(blob) < 2_000
    with pytest.raises(WrongRecoveryCodeError):
        Messenger.recover(MemoryStore(), alice.messenger.backup.without_history(CODE), CODE, purpose=Purpose.RECOVERY)


def test_an_export_is_not_recovered_over_an_account() -> None:
    alice, bob = pair()
    with pytest.raises(ValueError, match="holds an account already"):
        Messenger.recover(bob.store, alice.messenger.backup.without_history(CODE), CODE)
    assert bob.messenger.contact(UserId("alice")) is not None


def test_the_key_of_a_history_is_not_in_the_text_of_its_export() -> None:
    alice, _ = pair()
    shown = repr(opened(alice, resealed(alice, sections=((1, b"a key of a history"),))))
    assert "account_key_pair" in shown
    assert "a key of" not in shown


def test_sections_of_a_later_release_are_kept_in_the_payload() -> None:
    alice, _ = pair()
    assert opened(alice, resealed(alice, sections=((1, b"history"),))).sections == ((1, b"history"),)
    Messenger.recover(MemoryStore(), resealed(alice, sections=((1, b"history"),)), CODE)
