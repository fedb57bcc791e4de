"""Burning a one-time prekey with a message that does not authenticate (docs/attacks.md, row 20)."""

import pytest

from e2ee.errors import StoreUnavailableError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.content import ContentKind
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PreKeyMessage
from tests.breaking_store import BreakingStore
from tests.world import World, content_from, unchanged


def test_a_forged_first_message_leaves_the_one_time_prekeys_for_the_real_one() -> None:
    world = World("burning")
    alice, bob = world.device("alice"), world.device("bob")
    envelope = alice.encrypt(bob, "real")
    message = PreKeyMessage.decode(Envelope.decode(envelope).body)
    forged = PreKeyMessage(message.handshake, message.message._replace(prefix=message.message.prefix[:-1] + b"\0"))
    with unchanged(bob, Table.UNREADABLE):
        for _ in range(3):
            assert bob.receive(alice.wrap(bob, forged.encode())).outcome is Outcome.UNREADABLE
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_an_authentic_first_message_whose_content_is_refused_leaves_them_too() -> None:
    world = World("burning")
    alice, bob = world.device("alice"), world.device("bob")
    alice.start_session(bob)
    own_list = alice.messenger.own_device_list().signed
    malformed = content_from(alice, bob, kind=ContentKind.RECEIPT, body=b"junk", device_list=own_list)
    with unchanged(bob, Table.UNREADABLE):
        assert bob.receive(alice.seal(bob, malformed.encode())).outcome is Outcome.UNREADABLE
    assert bob.receive(alice.encrypt(bob, "real")).outcome is Outcome.STORED


def test_a_disk_that_fails_in_the_middle_of_the_commit_leaves_them_too() -> None:
    world = World("burning")
    disk = BreakingStore()
    alice, bob = world.device("alice"), world.device("bob", store=disk)
    envelope = alice.encrypt(bob, "real")
    before = bob.snapshot()
    for puts in range(6):
        disk.puts_left = puts
        with pytest.raises(StoreUnavailableError):
            bob.receive(envelope)
        disk.puts_left = None
        assert bob.snapshot() == before
    assert bob.receive(envelope).outcome is Outcome.STORED
    assert len(bob.snapshot()[Table.PREKEYS]) == len(before[Table.PREKEYS]) - 2
