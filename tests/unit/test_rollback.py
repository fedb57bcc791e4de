"""A store that was replaced by an older copy: how it is noticed, and what follows."""

from e2ee.errors import UnknownPreKeyError
from e2ee.limits import FRESH_SESSION_MS, MAX_TIMESTAMP
from e2ee.messenger import DeliveryPosition, Outcome
from e2ee.notices import StoreRolledBack
from e2ee.rollback import RelayStatement
from tests.world import Device, World, talk, unchanged


def established(seed: str = "rollback") -> tuple[Device, Device]:
    world = World(seed)
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    for device in (alice, bob):
        assert device.connect() == ()
    return alice, bob


def rolled_back(alice: Device, bob: Device) -> None:
    """Alice's store is put back by two messages."""
    old = alice.snapshot()
    for text in ("one", "two"):
        bob.receive(alice.encrypt(bob, text))
    bob.read()
    alice.restore(old)


def test_a_store_that_did_less_than_the_relay_remembers_ends_sending_on_all_sessions() -> None:
    alice, bob = established()
    under_way = bob.encrypt(alice, "to the old session")
    rolled_back(alice, bob)
    assert alice.connect() == (StoreRolledBack(),)
    assert all(session.dead for session in alice.sessions(bob))
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)
    assert alice.receive(under_way).outcome is Outcome.STORED


def test_what_was_queued_offline_since_the_store_was_put_back_hides_nothing() -> None:
    alice, bob = established()
    rolled_back(alice, bob)
    alice.restart()
    queued = [alice.messenger.send(bob.user_id, str(number)) for number in range(3)]
    alice.restart()
    assert queued[-1].entries[0].counter > alice.world.network.accepted[alice.address]
    assert alice.connect() == (StoreRolledBack(),)
    alice.world.settle()
    assert bob.read() == ["0", "1", "2"]


def test_a_store_that_was_online_since_its_opening_may_have_sent_everything() -> None:
    alice, bob = established()
    alice.restart()
    alice.connect()
    alice.encrypt(bob, "accepted, and the answer was lost")
    assert alice.connect() == ()
    alice.restart()
    assert alice.connect() == ()


def test_no_counter_is_used_twice_after_a_rollback() -> None:
    alice, bob = established()
    rolled_back(alice, bob)
    seen = alice.world.network.accepted[alice.address]
    alice.connect()
    alice.encrypt(bob, "anew")
    assert alice.world.network.accepted[alice.address] == seen + 1


def test_an_acknowledgement_above_the_stores_own_shows_a_rollback_too() -> None:
    _, bob = established()
    for seq in (1, 2, 4):
        bob.messenger.delivery.note_dropped(DeliveryPosition(1, seq))
    for acked in ((0, 0), (0, 99), (1, 2), (1, 4)):
        with unchanged(bob):
            assert bob.messenger.delivery.note_connected(RelayStatement(1, 2, 0, *acked)) == (), acked
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 2, 0, 1, 5)) == (StoreRolledBack(),)


def test_an_acknowledgement_in_an_epoch_that_the_store_never_saw_shows_a_rollback() -> None:
    _, bob = established()
    assert bob.messenger.delivery.note_connected(RelayStatement(2, 0, 0, 2, 1)) == (StoreRolledBack(),)


def test_sessions_are_reset_at_most_once_an_hour_and_once_for_each_rollback() -> None:
    _, bob = established()
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 1_000)) == (StoreRolledBack(),)
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 1_000)) == ()
    bob.world.wait(FRESH_SESSION_MS - 1)
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 2_000)) == ()
    assert bob.messenger.tend().again_in == 1
    bob.world.wait(1)
    assert bob.messenger.tend().notices == (StoreRolledBack(),), "that one was taken note of"
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 3_000)) == ()
    bob.world.wait(FRESH_SESSION_MS)
    assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 3_000)) == (StoreRolledBack(),)
    assert bob.messenger.tend().notices == ()


def test_a_crash_between_commit_and_network_never_looks_like_a_rollback() -> None:
    alice, bob = established()
    queued = [alice.messenger.send(bob.user_id, str(number)).entries[0] for number in range(5)]
    for entry in queued:
        alice.restart()  # after each of: queued, accepted by the relay, settled
        assert alice.connect() == ()
        alice.world.network.accept(alice.address, entry)
        alice.restart()
        assert alice.connect() == ()
        alice.messenger.outbox.settle([entry.envelope_id])
    for seq, envelope in enumerate(alice.world.network.in_flight, 1):
        bob.messenger.receive(envelope, DeliveryPosition(1, seq))
        bob.restart()
        assert bob.messenger.delivery.note_connected(RelayStatement(1, 0, 0, 1, seq)) == ()


def test_what_waited_in_the_outbox_is_encrypted_anew_and_read_once() -> None:
    """Written offline on the restored store, with message keys that were used before."""
    alice, bob = established()
    rolled_back(alice, bob)
    message_id = alice.messenger.send(bob.user_id, "written offline").message_id
    alice.connect()
    assert alice.messenger.outbox.entries() == []
    alice.world.settle()
    assert [message.content.message_id for message in bob.messenger.inbound()] == [message_id]
    assert bob.read() == ["written offline"]
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_a_peer_whose_messages_the_restored_store_cannot_read_sends_them_again() -> None:
    alice, bob = established()
    old = alice.snapshot()
    for _ in range(3):
        talk(alice, bob)
    alice.restore(old)
    alice.connect()
    bob.send(alice, "on a session state that alice has lost")
    alice.world.settle()
    assert alice.read() == ["on a session state that alice has lost"]
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_a_session_that_the_restored_store_never_knew_is_given_up_even_if_it_is_higher() -> None:
    """Bob's clock runs a day ahead, so his session outranks every one that alice starts now."""
    alice, bob = established()
    old = alice.snapshot()
    alice.world.wait(86_400_000)
    bob.start_session(alice)
    alice.receive(bob.encrypt(alice, "from tomorrow"))
    bob.receive(alice.encrypt(bob, "answered"))
    alice.world.wait(-86_400_000)
    alice.restore(old)
    alice.connect()
    alice.publish()  # the directory's prekeys are younger than the copy
    for number in range(3):
        bob.send(alice, str(number))
    alice.world.settle()
    assert alice.read() == ["0", "1", "2"]
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_prekeys_that_the_restored_store_may_not_hold_are_replaced() -> None:
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    alice.publish()
    old = alice.snapshot()
    alice.world.wait(8 * 24 * 3_600_000)
    alice.publish()
    alice.encrypt(bob, "so that the relay has seen more")
    alice.restore(old)
    assert isinstance(alice.receive(carol.encrypt(alice, "to a prekey that is gone")).error, UnknownPreKeyError)
    alice.connect()
    alice.publish()
    carol.start_session(alice)
    assert alice.receive(carol.encrypt(alice, "to a new one")).outcome is Outcome.STORED


def test_a_relay_that_states_the_highest_numbers_makes_us_start_anew_and_exhausts_nothing() -> None:
    alice, bob = established()
    highest = RelayStatement(MAX_TIMESTAMP, MAX_TIMESTAMP, MAX_TIMESTAMP, MAX_TIMESTAMP, MAX_TIMESTAMP)
    for _ in range(3):
        alice.messenger.delivery.note_connected(highest)
        alice.world.wait(FRESH_SESSION_MS)
    alice.connect()
    assert bob.receive(alice.encrypt(bob, "still here")).outcome is Outcome.STORED
