"""Our own chain of lists and our history, attacked: by a removed device of ours, by a thief in a race, by a restore."""

from dataclasses import replace

from e2ee.errors import ForbiddenContentError
from e2ee.history_book import FOREVER
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.content import ContentKind, encode_application
from e2ee.wire.device_list import SignedDeviceList
from tests.world import Device, World, content_from, talk, unchanged


def two_of_alice() -> tuple[Device, Device]:
    world = World("attacked")
    phone = world.device("alice", one_time_prekeys=False)
    stolen = world.further_device(phone)
    phone.messenger.history.set_retention(FOREVER)
    talk(stolen, phone)
    return phone, stolen


def test_a_removed_device_leaves_no_note_to_ourselves_in_our_history() -> None:
    phone, stolen = two_of_alice()
    before = phone.messenger.history.messages(phone.user_id)
    content = content_from(stolen, phone, body=encode_application("never said"))
    sealed = stolen.seal(phone, content.encode())
    phone.change_list(phone.messenger.account.listed)
    with unchanged(phone, Table.UNREADABLE):
        assert isinstance(phone.receive(sealed).error, ForbiddenContentError)
    assert phone.messenger.history.messages(phone.user_id) == before


def thiefs_lists(stolen: Device, count: int) -> list[SignedDeviceList]:
    lists, newest = [], stolen.messenger.own_device_list().content
    for _ in range(count):
        newest = replace(newest, seq=newest.seq + 1, previous_hash=newest.hash())
        lists.append(stolen.messenger.account.sign_device_list(newest).signed)
    return lists


def test_lists_that_a_thief_sends_before_the_reset_is_accepted_are_no_end_of_our_chain() -> None:
    phone, stolen = two_of_alice()
    drafted = phone.messenger.account_reset.draft()
    for signed in thiefs_lists(stolen, 5):
        said = content_from(stolen, phone, kind=ContentKind.EMPTY, body=b"", device_list=signed)
        assert phone.receive(stolen.seal(phone, said.encode())).outcome is Outcome.CONSUMED
    assert phone.messenger.own_device_list().content.seq > drafted.first.content.seq
    phone.messenger.account_reset.accepted()
    assert phone.messenger.own_device_list() == drafted.first
    assert phone.messenger.own_devices.lists_after(0)[-2:] == (drafted.closing.signed, drafted.first.signed)


def test_our_own_chain_is_known_again_across_a_reset() -> None:
    phone, _ = two_of_alice()
    drafted = phone.messenger.account_reset.draft()
    phone.messenger.account_reset.accepted()
    chain = phone.messenger.own_devices.lists_after(0)
    assert chain[-1] == drafted.first.signed
    with unchanged(phone):
        assert phone.messenger.own_devices.learn(chain) == drafted.first
