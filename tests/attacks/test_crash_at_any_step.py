"""A process that dies around any commit, whatever it was doing (docs/attacks.md, scenarios).

Here the processes are simulated, so that all steps of a conversation with loss and healing take seconds. Real processes
die by SIGKILL in tests/integration/test_crash_client.py and test_crash_devices.py.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

from e2ee.messenger import Outcome
from e2ee.ports import ReadTransaction, Store, Transaction
from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress
from e2ee.wire.message import PreKeyMessage, decode_body
from tests.phone import Books, Phone, Sent
from tests.relay import Relay
from tests.world import World

T = TypeVar("T")


class ProcessDied(BaseException):
    """Nothing in the library catches this, as nothing catches SIGKILL."""


class Steps:
    """Counts the commits of everybody; the process that takes step number `fatal` dies there."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.taken = fatal, 0

    def __call__(self) -> None:
        self.taken += 1
        if self.taken == self.fatal:
            raise ProcessDied


class MortalStore:
    """A store of which each commit is two steps: just before it, and just after it."""

    def __init__(self, inside: Store, step: Steps) -> None:
        self._inside, self._step = inside, step

    def read(self) -> AbstractContextManager[ReadTransaction]:
        return self._inside.read()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._inside.write() as tx:
            yield tx
            self._step()
        self._step()

    def close(self) -> None:
        self._inside.close()


class SuspiciousRelay(Relay):
    """Looks at everything that is sent."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes: dict[tuple[DeviceAddress, bytes], bytes] = {}
        self._under_key: dict[bytes, bytes] = {}

    def accept(self, sender: DeviceAddress, entry: OutboxEntry) -> None:
        sent = self._bytes.setdefault((sender, entry.envelope_id.raw), entry.envelope)
        assert sent == entry.envelope, "a retry sends the same bytes"
        body = Envelope.decode(entry.envelope).body
        decoded = decode_body(body)
        message = decoded.message if isinstance(decoded, PreKeyMessage) else decoded
        assert self._under_key.setdefault(message.commitment, body) == body, "no key encrypts two messages"
        super().accept(sender, entry)


class Mortal(Phone):
    """A device whose process may die; it is started anew and does again what it was doing."""

    def __init__(self, world: World, relay: Relay, books: Books, name: str, step: Steps) -> None:
        super().__init__(world, relay, books, name)
        self.device.store = MortalStore(self.store, step)
        self.restart()

    def does(self, act: Callable[[], T]) -> T:
        while True:
            try:
                return act()
            except ProcessDied:
                self.restart()

    def writes(self, peer: Phone, text: str) -> None:
        """Nothing else is queued by a device that writes, so what `send` committed before it died is one more row."""

        def say() -> None:
            for entry in self.device.messenger.outbox.entries():
                self.books.sent.setdefault(entry.message_id, Sent(self.address, peer.address, text))
            self.say(peer, text)

        self.does(say)

    def goes_online(self) -> None:
        self.does(self.connect)
        self.does(self.device.post)

    def fetches(self) -> list[Outcome | None]:
        """Take what waits; what was not acknowledged for a death comes again."""
        outcomes = [self.does(partial(self.take, row)) for row in self.waiting()]
        self.does(self.read)
        return outcomes


def life(fatal: int | None) -> int:
    """First contact, replies, a lost session and its healing; return how many steps there were."""
    world, relay, books, step = World("crash"), SuspiciousRelay(), Books(), Steps(None)
    world.network = relay
    alice, bob = (Mortal(world, relay, books, name, step) for name in ("alice", "bob"))
    step.fatal = fatal
    for sender, recipient in ((alice, bob), (bob, alice), (alice, bob)):
        for number in range(2):
            sender.writes(recipient, f"{number} of {sender.address}")
        sender.goes_online()
        recipient.fetches()
    bob.does(lambda: bob.device.forget_sessions(alice.device))
    alice.writes(bob, "nobody reads this at first")
    alice.goes_online()
    assert Outcome.UNREADABLE in bob.fetches()
    for sender, recipient in ((bob, alice), (alice, bob)):
        sender.does(sender.tend)
        recipient.fetches()
    assert books.missing() == []
    assert books.excused == {}
    assert all(not phone.device.messenger.outbox.entries() and not phone.waiting() for phone in (alice, bob))
    sessions = alice.device.sending_session(bob.device), bob.device.sending_session(alice.device)
    assert sessions[0].session_id == sessions[1].session_id
    return step.taken


def test_a_process_that_dies_at_any_step_loses_repeats_and_reuses_nothing() -> None:
    steps = life(None)
    assert steps > 50
    for fatal in range(1, steps + 1):
        life(fatal)
