"""Concurrent calls that roll each other's state back (docs/attacks.md, row 31)."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from e2ee.messenger import Messenger, Outcome
from tests.world import Device, World, talk

THREADS = 8


def established() -> tuple[Device, Device]:
    world = World("concurrency")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def receive_together(device: Device, envelopes: list[bytes]) -> list[Outcome]:
    """Receive one envelope in each thread, on a Messenger of its own, all at the same moment."""
    start = Barrier(len(envelopes))

    def receive(envelope: bytes) -> Outcome:
        messenger = Messenger.open(device.store, clock=device.world.clock)
        start.wait()
        return messenger.receive(envelope).outcome

    with ThreadPoolExecutor(len(envelopes)) as threads:
        return list(threads.map(receive, envelopes))


def test_one_message_received_by_many_threads_is_stored_once() -> None:
    alice, bob = established()
    for _ in range(5):
        outcomes = receive_together(bob, [alice.encrypt(bob, "hello")] * THREADS)
        assert Counter(outcomes) == {Outcome.STORED: 1, Outcome.DUPLICATE: THREADS - 1}
        assert bob.read() == ["hello"]


def test_one_first_message_received_by_many_threads_starts_one_session() -> None:
    world = World("concurrency")
    alice, bob = world.device("alice"), world.device("bob")
    outcomes = receive_together(bob, [alice.encrypt(bob, "hello")] * THREADS)
    assert Counter(outcomes) == {Outcome.STORED: 1, Outcome.DUPLICATE: THREADS - 1}
    assert len(bob.sessions(alice)) == 1


def test_different_messages_received_together_all_arrive_and_none_comes_twice() -> None:
    alice, bob = established()
    for _ in range(5):
        texts = [str(number) for number in range(THREADS)]
        envelopes = [alice.encrypt(bob, text) for text in texts]
        assert receive_together(bob, envelopes) == [Outcome.STORED] * THREADS
        assert sorted(map(str, bob.read())) == texts
        assert receive_together(bob, envelopes) == [Outcome.DUPLICATE] * THREADS


def test_messages_sent_together_get_keys_and_counters_of_their_own() -> None:
    alice, bob = established()
    start = Barrier(THREADS)

    def send(number: int) -> bytes:
        messenger = Messenger.open(alice.store, clock=alice.world.clock)
        start.wait()
        return messenger.send(bob.user_id, str(number)).entries[0].envelope

    with ThreadPoolExecutor(THREADS) as threads:
        envelopes = list(threads.map(send, range(THREADS)))
    counters = [entry.counter for entry in alice.messenger.outbox()]
    assert counters == list(range(counters[0], counters[0] + THREADS))
    assert [bob.receive(envelope).outcome for envelope in envelopes] == [Outcome.STORED] * THREADS
    assert sorted(map(str, bob.read())) == [str(number) for number in range(THREADS)]
