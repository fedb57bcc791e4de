"""Messages that could not be read: who asks whom, when, on which session; what is honoured."""

from dataclasses import replace

import pytest

from e2ee.account import Account
from e2ee.errors import AccountKeyChangedError, AuthenticationError
from e2ee.limits import (
    FRESH_SESSION_MS,
    HOUR_MS,
    LATE_ENVELOPE_MS,
    MAX_RESENDS,
    MAX_RETRY_IDS,
    MAX_SENT_CONTENTS,
    MAX_SKIP,
    MAX_TIMESTAMP,
    PQ_ANSWER_MS,
    RETRY_REQUEST_MS,
    SENT_CONTENT_MS,
)
from e2ee.messenger import DeliveryPosition, Messenger, Outcome
from e2ee.notices import AskedAgain, MessageNotResent, MessageResent, Notice, SessionReplaced, StoreRolledBack
from e2ee.ports import Table
from e2ee.stores import sent_records, session_records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.records import save_account, save_contact, save_own_device_list
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.device_list import ListedDevice, VerifiedDeviceList, ordered
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import ConversationId, EnvelopeId
from e2ee.wire.public_keys import DeviceSigningKey, IdentityKey
from tests.world import Device, World, flip, talk


def established(seed: str = "healing") -> tuple[Device, Device]:
    world = World(seed)
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    world.wait(1)  # so that a session that starts now outranks the first
    return alice, bob


def lost(alice: Device, bob: Device, text: str = "lost") -> bytes:
    """Alice's message reaches bob, who has forgotten the session."""
    bob.forget_sessions(alice)
    envelope = alice.send(bob, text)
    assert [each.outcome for each in alice.world.deliver()] == [Outcome.UNREADABLE]
    return envelope


def rolled_back(device: Device) -> None:
    """The relay remembers more than the store: all its sessions end."""
    device.world.network.accepted[device.address] += 1
    assert device.connect() == (StoreRolledBack(),)


def envelope_id(envelope: bytes) -> EnvelopeId:
    return Envelope.decode(envelope).envelope_id


def ask(asker: Device, peer: Device, *envelopes: bytes) -> None:
    """Send a retry request on the sending session, whether or not anything is missing."""
    body = encode_retry_request(tuple(envelope_id(each) for each in envelopes))
    assert peer.receive(asker.encrypt(peer, body, ContentKind.RETRY_REQUEST)).outcome is Outcome.CONSUMED


# --- the receiver --------------------------------------------------------------------------------------------


def test_a_message_of_a_lost_session_is_asked_for_and_read_after_all() -> None:
    alice, bob = established()
    dead = alice.sending_session(bob).session_id
    envelope = lost(alice, bob)
    notices = alice.world.settle()
    assert bob.read() == ["lost"]
    asked = AskedAgain(alice.address, (envelope_id(envelope),))
    assert [type(each) for each in notices] == [AskedAgain, SessionReplaced, MessageResent]
    assert notices[0] == asked
    assert alice.session_of(bob, dead).dead
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_the_fresh_sessions_first_message_is_the_retry_request() -> None:
    alice, bob = established()
    lost(alice, bob)
    bob.tend()
    (request,) = alice.world.network.in_flight
    session = bob.sending_session(alice)
    assert session.carries_handshake
    assert session.ratchets.double.sending is not None
    assert session.ratchets.double.sending.next_index == 1
    assert alice.receive(request).outcome is Outcome.CONSUMED


def test_everything_that_was_unreadable_goes_into_one_request() -> None:
    alice, bob = established()
    bob.forget_sessions(alice)
    for number in range(10):
        alice.send(bob, str(number))
    alice.world.deliver()
    notices = alice.world.settle()
    assert len([each for each in notices if isinstance(each, AskedAgain)]) == 1
    assert bob.read() == [str(number) for number in range(10)]


def test_the_message_that_comes_again_is_the_same_message() -> None:
    alice, bob = established()
    bob.forget_sessions(alice)
    alice.world.wait(1234)
    queued = alice.messenger.send(bob.user_id, "hello", conversation=ConversationId("work"), lane=Lane.BULK)
    sent_at = alice.world.now
    alice.world.wait(5000)
    alice.post()
    alice.world.settle()
    (message,) = bob.messenger.inbound()
    assert message.content.message_id == queued.message_id
    assert message.content.conversation_id == "work"
    assert message.content.sent_at == sent_at


def test_at_most_one_session_an_hour_is_started_for_healing() -> None:
    alice, bob = established()
    lost(alice, bob)
    assert bob.messenger.tend().sessions_wanted == (alice.address,)
    bob.start_session(alice)
    bob.forget_sessions(alice)  # and this one is lost as well
    tended = bob.messenger.tend()
    assert (tended.sessions_wanted, tended.again_in) == ((), FRESH_SESSION_MS)
    alice.world.wait(FRESH_SESSION_MS - 1)
    assert bob.messenger.tend().sessions_wanted == ()
    alice.world.wait(1)
    assert bob.messenger.tend().sessions_wanted == (alice.address,)


def test_at_most_one_retry_request_a_minute_is_sent() -> None:
    alice, bob = established()
    stray = [alice.encrypt(bob, str(number)) for number in range(2)]
    bob.forget_sessions(alice)
    bob.receive(stray[0])
    assert len(bob.tend().notices) == 1
    bob.receive(stray[1])
    alice.world.deliver()
    alice.tend()
    assert [each.tend for each in alice.world.deliver()] == [True], "the first answer may let something fall due"
    tended = bob.tend()
    assert (tended.notices, tended.again_in) == ((), RETRY_REQUEST_MS)
    alice.world.wait(RETRY_REQUEST_MS)
    assert bob.tend().notices == (AskedAgain(alice.address, (envelope_id(stray[1]),)),)
    assert bob.tend().notices == (), "each is asked for once on one session"


def test_on_a_session_that_the_peer_does_not_answer_at_most_one_retry_request_an_hour_is_sent() -> None:
    """Else two devices that cannot read each other would ask for each other's requests, every minute."""
    alice, bob = established()
    stray = [alice.encrypt(bob, str(number)) for number in range(2)]
    bob.forget_sessions(alice)
    bob.receive(stray[0])
    assert len(bob.tend().notices) == 1
    bob.receive(stray[1])
    tended = bob.tend()
    assert (tended.notices, tended.again_in) == ((), FRESH_SESSION_MS)
    alice.world.wait(FRESH_SESSION_MS)
    assert bob.tend().notices == (AskedAgain(alice.address, (envelope_id(stray[1]),)),)


def test_a_session_that_the_peer_does_not_answer_is_given_up_if_it_still_sends_what_we_cannot_read() -> None:
    """Alice has a session that bob lost, and it outranks the one on which bob asks: she sends on the lost one."""
    alice, bob = established()
    before, clock = bob.snapshot(), bob.clock
    bob.clock = lambda: clock() + HOUR_MS  # so that the session that is lost is the higher one
    bob.restart()
    bob.start_session(alice)
    lost = bob.encrypt(alice, "on a session that is lost")
    bob.clock = clock
    bob.restore(before)
    bob.restart()
    bob.start_session(alice)
    alice.receive(bob.encrypt(alice, "on the session that remains"))
    alice.receive(lost)
    alice.send(bob, "unreadable")
    alice.world.settle()
    assert bob.read() == [], "the request came on a session older than the one that carried the message: ignored"
    alice.world.wait(FRESH_SESSION_MS)
    alice.send(bob, "unreadable as well")
    alice.world.settle()
    assert bob.read() == ["unreadable", "unreadable as well"]
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_a_peers_session_below_dead_ones_leads_to_a_fresh_one_of_which_the_peer_hears() -> None:
    """The peer goes on with what is dead here; without a fresh session the ends would send on different ones."""
    alice, bob = established()
    alice.start_session(bob)
    late = alice.encrypt(bob, "late")
    alice.world.wait(1)
    alice.start_session(bob)
    talk(alice, bob)
    rolled_back(bob)
    assert bob.receive(late).tend
    assert bob.messenger.tend().sessions_wanted == (alice.address,)
    bob.tend()
    alice.world.wait(PQ_ANSWER_MS)
    alice.world.settle()
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_a_message_that_was_under_way_when_the_fresh_session_began_is_asked_for_on_it() -> None:
    alice, bob = established()
    lost(alice, bob, "first")
    bob.tend()
    late = alice.encrypt(bob, "late")
    assert bob.receive(late).outcome is Outcome.UNREADABLE
    alice.world.wait(RETRY_REQUEST_MS)
    alice.world.settle()
    assert sorted(map(str, bob.read())) == ["first", "late"]
    assert len(bob.sessions(alice)) == 1


def test_what_is_still_unread_is_asked_for_again_on_each_new_session_up_to_three_times() -> None:
    alice, bob = established()
    stray = lost(alice, bob)
    asked = []
    for _ in range(6):
        asked += [each for each in bob.tend().notices if isinstance(each, AskedAgain)]
        alice.world.network.in_flight.clear()  # neither the request nor anything else arrives
        alice.world.wait(FRESH_SESSION_MS)
        bob.start_session(alice)
    assert asked == [AskedAgain(alice.address, (envelope_id(stray),))] * 3


def test_at_most_256_envelopes_of_a_device_are_asked_for_the_newest() -> None:
    alice, bob = established()
    strays = [alice.wrap(bob, Envelope.decode(alice.encrypt(bob, "x")).body) for _ in range(2)]
    bob.forget_sessions(alice)
    ids = []
    for number in range(MAX_RETRY_IDS + 10):
        envelope = replace(Envelope.decode(strays[0]), envelope_id=EnvelopeId(number.to_bytes(16, "big")))
        ids.append(envelope.envelope_id)
        bob.receive(envelope.encode())
    (notice,) = bob.tend().notices
    assert notice == AskedAgain(alice.address, tuple(ids[10:]))


def test_a_device_that_left_its_list_is_asked_for_nothing() -> None:
    alice, bob = established()
    lost(alice, bob)
    carol = bob.world.device("carol", one_time_prekeys=False)
    contact = bob.messenger.contact(alice.user_id)
    assert contact is not None
    emptied = replace(contact.device_list.content, devices=carol.messenger.own_device_list().content.devices)
    with bob.store.write() as tx:
        signed = alice.messenger.account.sign_device_list(emptied)
        save_contact(tx, contact.with_list(VerifiedDeviceList(emptied, signed.signed)))
    tended = bob.messenger.tend()
    assert (tended.lacks, tended.queued, tended.again_in) == (False, 0, None)


def test_a_stale_list_is_fetched_before_anything_is_asked() -> None:
    alice, bob = established()
    lost(alice, bob)
    contact = bob.messenger.contact(alice.user_id)
    assert contact is not None
    with bob.store.write() as tx:
        save_contact(tx, replace(contact, heard_seq=contact.device_list.content.seq + 1))
    tended = bob.messenger.tend()
    assert (tended.stale_lists, tended.sessions_wanted) == ((alice.user_id,), ())


def test_nothing_is_asked_of_a_contact_that_waits_for_a_decision_and_the_rest_goes_on() -> None:
    """Tending goes on for ever in a client: what a peer does must not end it."""
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    alice.world.wait(1)
    lost(alice, bob)
    lost(carol, bob)
    again = alice.world.device("alice", one_time_prekeys=False, listed=False)
    newest = alice.messenger.own_device_list().content
    own = again.messenger.own_device_list().content
    following = replace(own, seq=newest.seq + 1, previous_hash=newest.hash())
    with pytest.raises(AccountKeyChangedError):
        bob.messenger.learn_device_lists(alice.user_id, [again.messenger.account.sign_device_list(following).signed])
    assert bob.messenger.tend().sessions_wanted == (carol.address,)


def test_a_clock_that_was_set_back_delays_healing_by_no_more_than_the_pause() -> None:
    alice, bob = established()
    lost(alice, bob)
    bob.messenger.tend()
    bob.start_session(alice)
    bob.forget_sessions(alice)
    alice.world.wait(-30 * FRESH_SESSION_MS)
    assert bob.messenger.tend().sessions_wanted == (alice.address,)


def test_an_unreadable_envelope_is_acknowledged_once_and_noted_once() -> None:
    alice, bob = established()
    tampered = flip(alice.encrypt(bob, "hello"), 8 * 300)
    for _ in range(3):
        assert isinstance(bob.receive(tampered).error, AuthenticationError)
    bob.messenger.tend()
    bob.start_session(alice)
    assert bob.tend().notices == (AskedAgain(alice.address, (envelope_id(tampered),)),)


# --- the sender ----------------------------------------------------------------------------------------------


def test_a_request_on_the_session_that_carried_the_message_is_not_honoured() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "said")
    ask(bob, alice, envelope)
    assert alice.messenger.tend().queued == 0
    assert not alice.sending_session(bob).dead


def test_a_request_for_an_envelope_that_was_never_sent_is_ignored() -> None:
    alice, bob = established()
    bob.start_session(alice)
    ask(bob, alice, bob.wrap(alice, b"x"))
    assert alice.messenger.tend() == alice.messenger.tend()
    assert alice.messenger.outbox.entries() == []


def test_a_message_is_sent_again_to_one_device_three_times_at_most() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "said")
    notices: list[Notice] = []
    for _ in range(MAX_RESENDS + 2):
        alice.world.wait(1)
        bob.start_session(alice)
        ask(bob, alice, envelope)
        notices += alice.tend().notices
    assert len([each for each in notices if isinstance(each, MessageResent)]) == MAX_RESENDS
    assert len(alice.world.network.in_flight) == MAX_RESENDS
    ids = {envelope_id(each) for each in alice.world.network.in_flight}
    assert len(ids) == MAX_RESENDS, "each under an envelope id of its own"


def test_resends_count_together_whichever_envelope_of_the_message_is_named() -> None:
    alice, bob = established()
    newest = alice.encrypt(bob, "said")
    for _ in range(MAX_RESENDS + 1):
        alice.world.wait(1)
        bob.start_session(alice)
        ask(bob, alice, newest)
        alice.tend()
        newest = alice.world.network.in_flight[-1]
    assert len(alice.world.network.in_flight) == MAX_RESENDS


def test_a_resent_message_is_shown_once() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "said")
    bob.receive(envelope)
    bob.start_session(alice)
    ask(bob, alice, envelope)
    alice.world.settle()
    assert bob.read() == ["said"]


def test_an_honoured_request_ends_sending_on_the_session_that_carried_the_message_even_without_its_content() -> None:
    alice, bob = established()
    carrying = alice.sending_session(bob).session_id
    envelope = alice.encrypt(bob, "said")
    with alice.store.write() as tx:
        sent_records.forget_contents(tx, alice.world.now + 1)
    bob.start_session(alice)
    notice = alice.receive(
        bob.encrypt(alice, encode_retry_request((envelope_id(envelope),)), ContentKind.RETRY_REQUEST)
    ).notices[-1]
    assert isinstance(notice, MessageNotResent)
    assert alice.session_of(bob, carrying).dead
    assert alice.messenger.tend().queued == 0


def test_calls_and_requests_are_not_sent_again() -> None:
    alice, bob = established()
    call = alice.messenger.send(bob.user_id, "ring", lane=Lane.CONTROL).entries[0].envelope
    request = alice.encrypt(bob, encode_retry_request((EnvelopeId(bytes(16)),)), ContentKind.RETRY_REQUEST)
    empty = alice.encrypt(bob, b"", ContentKind.EMPTY)
    bob.start_session(alice)
    ask(bob, alice, call, request, empty)
    tended = alice.messenger.tend()
    assert (tended.queued, tended.notices) == (0, ())


def test_a_device_that_is_new_in_the_list_gets_what_waits_in_the_outbox() -> None:
    alice, bob = established()
    alice.encrypt(bob, "the server has taken this one with the older list")
    alice.messenger.send(bob.user_id, "for all devices")
    tablet = second_device(bob)
    alice.meet(bob)
    alice.world.settle()
    assert bob.read() == ["for all devices"]
    assert tablet.read() == ["for all devices"]


def second_device(first: Device) -> Device:
    """Make another device of the same user, on the same account key, and list both in the directory."""
    world = first.world
    store = MemoryStore()
    with store.write() as tx:
        fresh = Account.generate(first.user_id, world.random.randbytes)
        account = replace(fresh, account_key_pair=first.messenger.account.account_key_pair)
        save_account(tx, account)
        last = first.messenger.own_device_list().content
        devices = (*last.devices, ListedDevice(account.address.device_id, *account_keys(account)))
        both = replace(last, seq=last.seq + 1, previous_hash=last.hash(), devices=ordered(devices))
        signed = account.sign_device_list(both)
        save_own_device_list(tx, signed)
    with first.store.write() as tx:
        save_own_device_list(tx, signed)
    world.directory.lists[first.user_id].append(signed.signed)
    messenger = Messenger.open(store, rng=world.random.randbytes, clock=world.clock)
    device = Device(world, store, messenger, one_time_prekeys=False)
    world.devices[device.address] = device
    return device


def account_keys(account: Account) -> tuple[DeviceSigningKey, IdentityKey]:
    return account.party.device_signing_key, account.party.identity_key


# --- the sent log --------------------------------------------------------------------------------------------


def test_a_send_to_one_device_adds_one_record_to_the_log() -> None:
    alice, bob = established()
    before = alice.snapshot()
    alice.messenger.send(bob.user_id, "hello")
    after = alice.snapshot()
    added = {table: len(after[table]) - len(before[table]) for table in Table}
    assert {table: number for table, number in added.items() if number} == {Table.SENT: 1, Table.OUTBOX: 1}


def test_contents_are_kept_for_14_days_and_what_names_the_session_for_45() -> None:
    alice, bob = established()
    envelope = alice.encrypt(bob, "said")
    alice.world.wait(SENT_CONTENT_MS)
    alice.messenger.prune()
    assert content_of(alice, envelope) == "kept"
    alice.world.wait(1)
    alice.messenger.prune()
    assert content_of(alice, envelope) == "forgotten"
    alice.world.wait(LATE_ENVELOPE_MS - SENT_CONTENT_MS - 1)
    alice.messenger.prune()
    assert content_of(alice, envelope) == "forgotten"
    alice.world.wait(1)
    alice.messenger.prune()
    assert content_of(alice, envelope) == "unknown"


def test_the_contents_of_no_more_than_1000_messages_are_kept() -> None:
    alice, bob = established()
    envelopes = []
    for number in range(MAX_SENT_CONTENTS + 200):
        alice.world.wait(1)
        envelopes.append(alice.encrypt(bob, str(number)))
    kept = [content_of(alice, each) for each in envelopes]
    assert MAX_SENT_CONTENTS <= kept.count("kept") < MAX_SENT_CONTENTS + 64
    assert kept[-MAX_SENT_CONTENTS:] == ["kept"] * MAX_SENT_CONTENTS


def test_without_a_sent_log_nothing_said_is_kept_and_what_was_kept_goes() -> None:
    alice, bob = established()
    before = alice.encrypt(bob, "kept so far")
    assert content_of(alice, before) == "kept"
    alice.messenger = Messenger.open(
        alice.store, rng=alice.world.random.randbytes, clock=alice.world.clock, sent_log=False
    )
    alice.messenger.outbox.expire()
    after = alice.encrypt(bob, "not kept")
    assert [content_of(alice, each) for each in (before, after)] == ["forgotten", "forgotten"]
    bob.start_session(alice)
    ask(bob, alice, after)
    assert alice.messenger.missing_sessions(bob.user_id) == (), "the fresh session takes over all the same"


def content_of(device: Device, envelope: bytes) -> str:
    with device.store.read() as tx:
        if sent_records.sent_envelope(tx, envelope_id(envelope)) is None:
            return "unknown"
        return "kept" if sent_records.sent_content(tx, envelope_id(envelope)) else "forgotten"


# --- sessions ------------------------------------------------------------------------------------------------


def test_sessions_of_a_pair_are_established_one_after_the_other_whatever_the_clock_says() -> None:
    alice, bob = established()
    for step in (0, -5000, 0):
        alice.world.wait(step)
        bob.start_session(alice)
        alice.receive(bob.encrypt(alice, "fresh"))
    for one, other in ((alice, bob), (bob, alice)):
        times = [session.origin.established_at for session in reversed(one.sessions(other))]
        assert times == sorted(set(times))


def test_what_the_relay_dropped_widens_the_gap_that_a_message_may_skip() -> None:
    alice, bob = established()
    bob.connect()
    for number in range(MAX_SKIP + 500):
        alice.encrypt(bob, "dropped")
        if number < 500:
            for _ in range(2):  # delivered twice, counted once
                bob.messenger.delivery.note_dropped(DeliveryPosition(1, number + 1), alice.address)
    assert bob.receive(alice.encrypt(bob, "after the gap")).outcome is Outcome.STORED
    for _ in range(MAX_SKIP + 1):
        alice.encrypt(bob, "lost")
    assert bob.receive(alice.encrypt(bob, "too far")).outcome is Outcome.UNREADABLE, "the allowance was used up"


def test_rows_dropped_from_strangers_are_not_counted() -> None:
    alice, bob = established()
    mallory = bob.world.device("mallory", one_time_prekeys=False)
    bob.messenger.delivery.note_dropped(DeliveryPosition(1, 1), mallory.address)
    bob.messenger.delivery.note_dropped(DeliveryPosition(1, 2))
    assert bob.snapshot()[Table.DROPPED] == ()
    assert alice.address != mallory.address


def test_a_session_started_deliberately_is_the_one_we_send_on_even_if_the_peer_used_the_highest_time() -> None:
    alice, bob = established()
    newest = alice.sending_session(bob)
    highest = newest._replace(origin=replace(newest.origin, created=MAX_TIMESTAMP, associated_data=b"\xff" * 32))
    with alice.store.write() as tx:
        session_records.add_session(tx, highest)
    for _ in range(6):
        fresh = alice.start_session(bob)
        assert fresh.origin.created == MAX_TIMESTAMP
        assert alice.sending_session(bob).session_id == fresh.session_id
