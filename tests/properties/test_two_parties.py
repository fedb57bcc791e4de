"""Random conversations of two devices over a network that loses, reorders, repeats and tampers.

Invariants: what is delivered is what was sent; no message comes twice; whatever was not dropped arrives once the
network heals; a refused envelope changes nothing but the record of it.
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
PICKS = st.integers(0, 1 << 16)
"""Chooses one of several, modulo their number: which session sends is random, so sizes must not shape the draws."""


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
    @rule(pick=PICKS)
    def deliver_any(self, pick: int) -> None:
        self.arrive(self.world.network.in_flight.pop(pick % len(self.world.network.in_flight)))

    @precondition(lambda self: self.world.network.in_flight)
    @rule(pick=PICKS)
    def repeat_any(self, pick: int) -> None:
        self.arrive(self.one_in_flight(pick))

    @precondition(lambda self: self.texts)
    @rule(pick=PICKS)
    def replay_any_ever_sent(self, pick: int) -> None:
        envelope = list(self.texts)[pick % len(self.texts)]
        if self.shown[self.end_of(envelope)][self.texts[envelope]]:
            with unchanged(self.devices[self.end_of(envelope)]):
                assert self.devices[self.end_of(envelope)].receive(envelope).outcome is Outcome.DUPLICATE

    @precondition(lambda self: self.world.network.in_flight)
    @rule(pick=PICKS)
    def drop_any(self, pick: int) -> None:
        envelope = self.world.network.in_flight.pop(pick % len(self.world.network.in_flight))
        end, text = self.end_of(envelope), self.texts[envelope]
        self.dropped[end][text] = 1 - self.shown[end][text]

    @precondition(lambda self: self.world.network.in_flight)
    @rule(pick=PICKS, bit=PICKS)
    def tamper_with_any(self, pick: int, bit: int) -> None:
        envelope = self.one_in_flight(pick)
        body = Envelope.decode(envelope).body
        bit %= 8 * len(body)
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
                assert self.devices[end].messenger.delivery.cursor()[1] == self.seqs[end]

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

    def one_in_flight(self, pick: int) -> bytes:
        return self.world.network.in_flight[pick % len(self.world.network.in_flight)]

    def end_of(self, envelope: bytes) -> int:
        return int(Envelope.decode(envelope).recipient == self.devices[1].address)


TwoParties.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
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
