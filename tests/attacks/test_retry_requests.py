"""Retry requests as an oracle, as an amplifier, as a way to revive sessions (docs/attacks.md, rows 24, 54 to 56)."""

from dataclasses import replace
from itertools import pairwise

from e2ee.limits import FRESH_SESSION_MS, MAX_RESENDS
from e2ee.messenger import Outcome, Reception
from e2ee.ports import Table
from e2ee.stores import records
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.device_list import ListedDevice, VerifiedDeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import EnvelopeId
from tests.world import Device, World, changed, content_from, talk, unchanged

HOT = (Table.SESSIONS, Table.BODY_HASHES, Table.MESSAGE_IDS)
"""What every authentic message changes."""


def people(*names: str) -> list[Device]:
    world = World("retry requests")
    devices = [world.device(name, one_time_prekeys=False) for name in names]
    for one, other in pairwise(devices):
        talk(one, other)
    world.wait(1)
    return devices


def request(asker: Device, peer: Device, *envelopes: bytes) -> Reception:
    ids = tuple(Envelope.decode(each).envelope_id for each in envelopes)
    return peer.receive(asker.encrypt(peer, encode_retry_request(ids), ContentKind.RETRY_REQUEST))


def test_a_retry_request_on_an_older_leaked_session_gets_nothing_and_ends_nothing() -> None:
    alice, bob = people("alice", "bob")
    leaked = alice.snapshot()
    alice.start_session(bob)
    talk(alice, bob)
    healed = bob.sending_session(alice).session_id
    secret = bob.encrypt(alice, "on the healed session")
    alice.receive(secret)
    present = alice.snapshot()
    alice.restore(leaked)  # the thief, with everything that alice had
    with unchanged(bob, *HOT):
        assert request(alice, bob, secret).outcome is Outcome.CONSUMED
    alice.restore(present)
    assert bob.messenger.tend().queued == 0
    assert bob.sending_session(alice).session_id == healed
    assert not bob.session_of(alice, healed).dead


def test_an_older_leaked_session_cannot_be_made_the_sending_one() -> None:
    """By no content, by no request, by no number of messages, and not by garbage on the newer one."""
    alice, bob = people("alice", "bob")
    leaked = alice.snapshot()
    alice.start_session(bob)
    talk(alice, bob)
    healed = bob.sending_session(alice).session_id
    heard = bob.encrypt(alice, "on the healed session")
    garbage = changed(heard, sender=alice.address, recipient=bob.address)
    present = alice.snapshot()
    alice.restore(leaked)
    old = alice.sending_session(bob)
    for kind in range(1, 12):
        bob.receive(alice.seal(bob, content_from(alice, bob, kind=kind, body=b"").encode(), old))
        old = alice.session_of(bob, old.session_id)
    for _ in range(3):
        request(alice, bob, heard)
        bob.receive(garbage)
        bob.tend()
        bob.world.wait(FRESH_SESSION_MS)
    alice.restore(present)
    assert bob.sending_session(alice).precedence >= bob.session_of(alice, healed).precedence
    assert bob.sending_session(alice).session_id != old.session_id


def test_a_retry_request_for_a_message_meant_for_someone_else_is_not_honoured() -> None:
    bob, alice, mallory = people("bob", "alice", "mallory")
    secret = alice.encrypt(bob, "for bob alone")
    mallory.start_session(alice)
    assert request(mallory, alice, secret).outcome is Outcome.CONSUMED
    tended = alice.messenger.tend()
    assert (tended.queued, tended.sessions_wanted, tended.notices) == (0, (), ())
    assert alice.snapshot()[Table.RESENDS] == ()
    assert not alice.sending_session(bob).dead


def test_retry_requests_on_ever_new_sessions_are_no_amplifier() -> None:
    """A hostile recipient names everything that it was ever sent, what was sent again included, on one session more."""
    alice, bob = people("alice", "bob")
    envelopes = [alice.encrypt(bob, "x" * 1000) for _ in range(5)]
    sent_again = 0
    for _ in range(MAX_RESENDS + 3):
        bob.world.wait(1)
        bob.start_session(alice)
        assert request(bob, alice, *envelopes).outcome is Outcome.CONSUMED
        tended = alice.messenger.tend()
        sent_again += tended.queued
        envelopes += [entry.envelope for entry in alice.messenger.outbox.entries()]
        alice.messenger.outbox.settle([entry.envelope_id for entry in alice.messenger.outbox.entries()])
    assert sent_again == 5 * MAX_RESENDS


def test_retry_requests_on_sessions_out_of_order_cause_one_session_an_hour() -> None:
    """Each ends the session that we started last, on a lower one that came later."""
    alice, bob = people("alice", "bob")
    started = 0
    for _ in range(5):
        heard = alice.encrypt(bob, "heard")
        bob.receive(heard)
        bob.forget_sessions(alice)
        bob.world.wait(-FRESH_SESSION_MS)
        bob.start_session(alice)
        bob.world.wait(FRESH_SESSION_MS)
        request(bob, alice, heard)
        tended = alice.messenger.tend()
        started += len(tended.sessions_wanted)
        if tended.sessions_wanted:
            alice.start_session(bob)
            alice.messenger.tend()
        bob.world.wait(1000)
    assert started == 1


def test_a_device_that_left_its_list_gets_nothing_again() -> None:
    alice, bob = people("alice", "bob")
    secret = alice.encrypt(bob, "said")
    bob.start_session(alice)
    talk(bob, alice)
    ids = (Envelope.decode(secret).envelope_id,)
    asked = bob.encrypt(alice, encode_retry_request(ids), ContentKind.RETRY_REQUEST)
    stranger = alice.world.device("bob", one_time_prekeys=False, listed=False)
    replaced = stranger.messenger.own_device_list().content.devices
    delist(alice, bob, replaced)
    alice.receive(asked)
    assert alice.snapshot()[Table.RESENDS] == ()
    assert alice.messenger.outbox.entries() == []


def test_garbage_naming_a_stranger_causes_no_contact() -> None:
    alice, bob = people("alice", "bob")
    mallory = bob.world.device("mallory", one_time_prekeys=False)
    unlisted = bob.world.device("alice", one_time_prekeys=False, listed=False)
    garbage = alice.encrypt(bob, "x")
    for stranger in (mallory, unlisted):
        for number in range(20):
            forged = changed(garbage, sender=stranger.address, envelope_id=EnvelopeId(number.to_bytes(16, "big")))
            assert bob.receive(forged).outcome is Outcome.UNREADABLE
    tended = bob.messenger.tend()
    assert (tended.queued, tended.lacks, tended.again_in) == (0, False, None)
    assert bob.snapshot()[Table.HEALING] == ()
    assert bob.messenger.contact(mallory.user_id) is None


def test_garbage_in_the_name_of_a_contact_causes_one_session_an_hour() -> None:
    alice, bob = people("alice", "bob")
    garbage = alice.encrypt(bob, "x")
    sessions = set()
    for minute in range(120):
        body = Envelope.decode(garbage).body[:-1] + bytes([minute])
        bob.receive(changed(garbage, body=body, envelope_id=EnvelopeId(minute.to_bytes(16, "big"))))
        bob.tend()
        alice.world.deliver()
        bob.world.wait(60_000)
        sessions.add(bob.sending_session(alice).session_id)
    assert len(sessions) <= 3


def test_a_changed_account_key_is_never_accepted_by_healing() -> None:
    alice, bob = people("alice", "bob")
    impostor = alice.world.device("alice", one_time_prekeys=False, listed=False)
    pinned = bob.messenger.contact(alice.user_id)
    bob.receive(impostor.encrypt(bob, "under another key"))
    bob.receive(changed(alice.encrypt(bob, "x"), sender=impostor.address))
    assert not bob.messenger.tend().lacks
    assert bob.messenger.contact(alice.user_id) == pinned


def delist(device: Device, peer: Device, devices: tuple[ListedDevice, ...]) -> None:
    """Let a device know a list of the peer's user that no longer holds the peer."""
    with device.store.write() as tx:
        contact = records.load_contact(tx, peer.user_id)
        assert contact is not None
        last = contact.device_list.content
        changed_list = replace(last, seq=last.seq + 1, previous_hash=last.hash(), devices=devices)
        signed = peer.messenger.account.sign_device_list(changed_list)
        records.save_contact(tx, contact.with_list(VerifiedDeviceList(changed_list, signed.signed)))
