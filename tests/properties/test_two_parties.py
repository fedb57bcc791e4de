"""Random conversations of two devices over a network that loses, reorders, repeats and tampers.

Invariants: what is delivered is what was sent; no message comes twice; whatever was not dropped arrives once the network
heals; a refused envelope changes nothing but the record of it.
"""

from collections import Counter

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from e2ee.limits import DAY_MS, HOUR_MS
from e2ee.messenger import DeliveryPosition, Outcome
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from tests.world import Device, World, changed, flip, talk, unchanged

ENDS = st.integers(0, 1)


class TwoParties(RuleBasedStateMachine):
    """Alice and Bob, and everything between them."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.devices = [self.world.device(name, one_time_prekeys=False) for name in ("alice", "bob")]
        self.sent: list[Counter[str]] = [Counter(), Counter()]
        self.dropped: list[Counter[str]] = [Counter(), Counter()]
        self.shown: list[Counter[str]] = [Counter(), Counter()]
        self.texts: dict[bytes, str] = {}
        self.seqs = [0, 0]

    # --- what devices do -------------------------------------------------------------------------------------

    @rule(end=ENDS, size=st.sampled_from([0, 1, 200, 400]))
    def send(self, end: int, size: int) -> None:
        sender, recipient = self.devices[end], self.devices[1 - end]
        text = f"{len(self.texts)} " + "x" * size
        self.texts[sender.send(recipient, text)] = text
        self.sent[1 - end][text] += 1

    @rule(end=ENDS)
    def start_a_new_session(self, end: int) -> None:
        sender, recipient = self.devices[end], self.devices[1 - end]
        if len(recipient.sessions(sender)) + len(sender.sessions(recipient)) < 15:
            sender.start_session(recipient)

    @rule(end=ENDS)
    def restart(self, end: int) -> None:
        self.devices[end].restart()

    @rule(milliseconds=st.sampled_from([1, HOUR_MS, DAY_MS]))
    def wait(self, milliseconds: int) -> None:
        self.world.wait(milliseconds)

    # --- what the network does -------------------------------------------------------------------------------

    @precondition(lambda self: self.world.network.in_flight)
    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.world.network.in_flight) - 1))
        self.arrive(self.world.network.in_flight.pop(at))

    @precondition(lambda self: self.world.network.in_flight)
    @rule(data=st.data())
    def repeat_any(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.world.network.in_flight) - 1))
        self.arrive(self.world.network.in_flight[at])

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def replay_any_ever_sent(self, data: st.DataObject) -> None:
        envelope = data.draw(st.sampled_from(sorted(self.texts)))
        if self.shown[self.end_of(envelope)][self.texts[envelope]]:
            with unchanged(self.devices[self.end_of(envelope)]):
                assert self.devices[self.end_of(envelope)].receive(envelope).outcome is Outcome.DUPLICATE

    @precondition(lambda self: self.world.network.in_flight)
    @rule(data=st.data())
    def drop_any(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.world.network.in_flight) - 1))
        envelope = self.world.network.in_flight.pop(at)
        self.dropped[self.end_of(envelope)][self.texts[envelope]] += 1

    @precondition(lambda self: self.world.network.in_flight)
    @rule(data=st.data())
    def tamper_with_any(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.world.network.in_flight) - 1))
        envelope = self.world.network.in_flight[at]
        body = Envelope.decode(envelope).body
        bit = data.draw(st.integers(0, 8 * len(body) - 1))
        recipient = self.devices[self.end_of(envelope)]
        with unchanged(recipient, Table.UNREADABLE):
            assert recipient.receive(changed(envelope, body=flip(body, bit))).outcome is not Outcome.STORED

    @rule()
    def heal(self) -> None:
        while self.world.network.in_flight:
            self.arrive(self.world.network.in_flight.pop())
        for end in (0, 1):
            assert self.shown[end] == self.sent[end] - self.dropped[end]

    # --- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def nothing_was_shown_that_was_not_sent_and_nothing_twice(self) -> None:
        for end in (0, 1) if hasattr(self, "sent") else ():
            assert self.shown[end] <= self.sent[end]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.heal()
            for end in (0, 1):
                assert self.devices[end].messenger.cursor() == (1, self.seqs[end])

    def arrive(self, envelope: bytes) -> None:
        """Deliver an envelope as a relay does, and let the application read."""
        end = self.end_of(envelope)
        device = self.devices[end]
        self.seqs[end] += 1
        reception = device.messenger.receive(envelope, DeliveryPosition(1, self.seqs[end]))
        assert reception.outcome in (Outcome.STORED, Outcome.DUPLICATE)
        read = device.read()
        assert read == ([self.texts[envelope]] if reception.outcome is Outcome.STORED else [])
        self.shown[end].update(map(str, read))

    def end_of(self, envelope: bytes) -> int:
        return int(Envelope.decode(envelope).recipient == self.devices[1].address)


TwoParties.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestTwoParties = TwoParties.TestCase


def established(seed: int | str) -> tuple[Device, Device]:
    world = World(seed)
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


ALICE, BOB = established("arbitrary envelopes")
GENUINE = ALICE.encrypt(BOB, "genuine")
FIRST = ALICE.world.device("carol", one_time_prekeys=False).encrypt(BOB, "first")


@settings(max_examples=300)
@given(encoded=st.binary(max_size=600))
def test_arbitrary_bytes_never_raise_and_change_nothing(encoded: bytes) -> None:
    with unchanged(BOB, Table.UNREADABLE):
        assert BOB.receive(encoded).outcome is Outcome.UNREADABLE


@settings(max_examples=300)
@given(body=st.binary(max_size=600), kind=st.sampled_from([b"", b"\x01\x01", b"\x01\x02"]))
def test_arbitrary_bodies_never_raise_and_change_nothing(body: bytes, kind: bytes) -> None:
    with unchanged(BOB, Table.UNREADABLE):
        assert BOB.receive(ALICE.wrap(BOB, kind + body)).outcome is Outcome.UNREADABLE


@settings(max_examples=300)
@given(
    envelope=st.sampled_from([GENUINE, FIRST]),
    start=st.integers(0, 3000),
    replacement=st.binary(min_size=1, max_size=40),
    cut=st.integers(0, 40),
)
def test_spliced_envelopes_never_raise_and_change_nothing(
    envelope: bytes, start: int, replacement: bytes, cut: int
) -> None:
    body = Envelope.decode(envelope).body
    start %= len(body)
    spliced = body[:start] + replacement + body[start + cut :]
    if spliced == body:
        return
    with unchanged(BOB, Table.UNREADABLE):
        assert BOB.receive(changed(envelope, body=spliced)).outcome is Outcome.UNREADABLE


@settings(max_examples=300)
@given(content=st.binary(max_size=700))
def test_arbitrary_contents_of_an_authentic_peer_never_raise_and_change_nothing(content: bytes) -> None:
    with unchanged(BOB, Table.UNREADABLE):
        assert BOB.receive(ALICE.seal(BOB, content)).outcome is Outcome.UNREADABLE

