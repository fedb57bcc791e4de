"""Concurrent calls that roll each other's state back (docs/attacks.md, row 31)."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import pytest

from e2ee.limits import PQ_ANSWER_MS
from e2ee.messenger import Messenger, Outcome
from e2ee.stores.sqlite import SqliteStore
from e2ee.tending import Tended
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PqPayloadType, RatchetMessage
from tests.store_files import KEY
from tests.world import Device, World, talk

T = TypeVar("T")
THREADS = 8


def established() -> tuple[Device, Device]:
    world = World("concurrency")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[tuple[Device, Device]]:
    """Established devices on stores in files."""
    world = World("concurrency")
    with ExitStack() as stores:
        alice, bob = (
            world.device(
                name,
                one_time_prekeys=False,
                store=stores.enter_context(SqliteStore.create(tmp_path / name, key=KEY)),
            )
            for name in ("alice", "bob")
        )
        talk(alice, bob)
        world.wait(1)
        yield alice, bob


def together(device: Device, calls: Sequence[Callable[[Messenger], T]]) -> list[T]:
    """Make each call in a thread, on a Messenger of its own, all at the same moment."""
    start = Barrier(len(calls))

    def run(call: Callable[[Messenger], T]) -> T:
        messenger = Messenger.open(device.store, clock=device.world.clock)
        start.wait()
        return call(messenger)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def receive_together(device: Device, envelopes: list[bytes]) -> list[Outcome]:
    def receiving(envelope: bytes) -> Callable[[Messenger], Outcome]:
        return lambda messenger: messenger.receive(envelope).outcome

    return together(device, [receiving(envelope) for envelope in envelopes])


def tend_together(device: Device) -> list[Tended]:
    return together(device, [Messenger.tend] * THREADS)


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
    counters = [entry.counter for entry in alice.messenger.outbox.entries()]
    assert counters == list(range(counters[0], counters[0] + THREADS))
    assert [bob.receive(envelope).outcome for envelope in envelopes] == [Outcome.STORED] * THREADS
    assert sorted(map(str, bob.read())) == [str(number) for number in range(THREADS)]


def test_one_post_quantum_payload_received_by_many_threads_is_taken_and_answered_once(
    on_disk: tuple[Device, Device],
) -> None:
    alice, bob = on_disk
    world = alice.world
    for device, peer in ((alice, bob), (bob, alice)):
        device.messenger.heal_now(peer.user_id)
        device.post()
    payloads = set()
    while world.network.in_flight:
        for recipient, envelope in list(world.network.take()):
            payloads.add(RatchetMessage.decode(Envelope.decode(envelope).body).header.pq_type)
            outcomes = receive_together(world.devices[recipient], [envelope] * THREADS)
            assert Counter(outcomes) == {Outcome.CONSUMED: 1, Outcome.DUPLICATE: THREADS - 1}
        world.wait(PQ_ANSWER_MS)
        for device in (alice, bob):
            assert sum(tended.queued for tended in tend_together(device)) <= 1
            device.post()
    assert payloads >= {PqPayloadType.ENCAPSULATION_KEY, PqPayloadType.CIPHERTEXT}
    assert alice.sending_session(bob).ratchets.pq.epoch == bob.sending_session(alice).ratchets.pq.epoch > 0
    talk(alice, bob)


def test_one_retry_request_received_by_many_threads_is_honoured_once(on_disk: tuple[Device, Device]) -> None:
    alice, bob = on_disk
    bob.forget_sessions(alice)
    bob.receive(alice.encrypt(bob, "lost"))
    bob.tend()
    [(_, request)] = alice.world.network.take()
    outcomes = receive_together(alice, [request] * THREADS)
    assert Counter(outcomes) == {Outcome.CONSUMED: 1, Outcome.DUPLICATE: THREADS - 1}
    assert sum(tended.queued for tended in tend_together(alice)) == 1
    alice.post()
    alice.world.deliver()
    assert bob.read() == ["lost"]


def test_threads_that_tend_together_ask_once(on_disk: tuple[Device, Device]) -> None:
    alice, bob = on_disk
    bob.forget_sessions(alice)
    bob.receive(alice.encrypt(bob, "lost"))
    assert {tended.sessions_wanted for tended in tend_together(bob)} == {(alice.address,)}
    bob.start_session(alice)
    assert sum(tended.queued for tended in tend_together(bob)) == 1
    assert len(bob.messenger.outbox.entries()) == 1
