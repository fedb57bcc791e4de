"""Random runs of several devices: messages, network faults, crashes, old copies of stores, clocks a day apart.

Whatever happens, what an application is shown was said by the named sender, to it, and is shown once; what is tampered
with is not shown. Once the network is honest again, everybody soon reads everybody at the first delivery, both ends of
each pair send on the same session, and nothing that was said is missing, but for the reasons that tests/phone.py
writes down when they arise.

No draw depends on what the devices did, as that may depend on the order of two transcripts, which is never the same
(see tests/world.py). A rule that finds nothing to do does nothing.
"""

import os
from collections.abc import Iterator
from itertools import permutations
from typing import Final

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from e2ee.limits import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from e2ee.messenger import Outcome
from e2ee.ratchet.state import PqRatchetState
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import MessageId
from tests.decoded_once import decoded_once
from tests.phone import Books, Phone
from tests.relay import Relay, Row
from tests.world import World, changed, flip

RUNS: Final = 100
STEPS: Final = 100
"""Of each run: 10,000 in all."""

SOAK: Final = int(os.environ.get("E2EE_SOAK", "0"))
"""How many times as many runs; they are then random, so that each time others are made."""

LONGEST_STORM_MS: Final = 6 * DAY_MS
"""Below the 7 days of a skipped key and the 14 of the sent log, so that nothing may be missing for its age."""

ROUNDS_TO_HEAL: Final = 6

PHONES = st.integers(0, 11)
PICKS = st.integers(0, 1 << 16)
"""Chooses one of several, modulo their number."""


@pytest.fixture(autouse=True, scope="module")
def records_are_decoded_once() -> Iterator[None]:
    with decoded_once():
        yield


class SeveralDevices(RuleBasedStateMachine):
    """Three or four people with one device each, and the relay between them."""

    @initialize(seed=st.integers(0, 1000), number=st.sampled_from([3, 3, 4]))
    def begin(self, seed: int, number: int) -> None:
        self.world, self.relay, self.books = World(seed), Relay(), Books()
        self.world.network = self.relay
        names = ("alice", "bob", "carol", "dave")[:number]
        self.phones = [Phone(self.world, self.relay, self.books, name) for name in names]
        self.storm_ends = self.world.now + LONGEST_STORM_MS

    # --- what people do --------------------------------------------------------------------------------------

    @rule(who=PHONES, whom=PHONES, size=st.sampled_from([0, 1, 200, 400, 3000]))
    def send(self, who: int, whom: int, size: int) -> None:
        phone, peer = self.pair(who, whom)
        phone.say(peer, f"{len(self.books.sent)} " + "x" * size)

    @rule(who=PHONES, whom=PHONES, times=st.integers(2, 12))
    def send_many_and_go_online(self, who: int, whom: int, times: int) -> None:
        for _ in range(times):
            self.send(who, whom, 0)
        self.post(who)

    @rule(who=PHONES)
    def post(self, who: int) -> None:
        phone = self.phone(who)
        phone.connect()
        phone.device.post()

    @rule(who=PHONES)
    def post_without_hearing_that_it_was_accepted(self, who: int) -> None:
        phone = self.phone(who)
        phone.connect()
        for entry in phone.device.messenger.outbox.entries():
            self.relay.accept(phone.address, entry)
        phone.disconnect()

    @rule(who=PHONES)
    def read(self, who: int) -> None:
        self.phone(who).read()

    @rule(who=PHONES)
    def tend(self, who: int) -> None:
        self.phone(who).tend()

    @rule(who=PHONES, whom=PHONES)
    def heal_now(self, who: int, whom: int) -> None:
        phone, peer = self.pair(who, whom)
        phone.heal_now(peer)

    @rule(who=PHONES, whom=PHONES)
    def start_a_new_session(self, who: int, whom: int) -> None:
        phone, peer = self.pair(who, whom)
        phone.start_session(peer)

    @rule(who=PHONES, whom=PHONES)
    def start_sessions_at_the_same_time(self, who: int, whom: int) -> None:
        for phone, peer in (self.pair(who, whom), self.pair(who, whom)[::-1]):
            phone.start_session(peer)
            phone.say(peer, f"crossing, {len(self.books.sent)}")

    @rule(who=PHONES)
    def supply_one_time_prekeys(self, who: int) -> None:
        self.phone(who).supply_one_time_prekeys()

    @rule(who=PHONES)
    def renew_the_device_list(self, who: int) -> None:
        self.phone(who).renew_list()

    # --- what the network does -------------------------------------------------------------------------------

    @rule(who=PHONES)
    def deliver_all(self, who: int) -> None:
        phone = self.phone(who)
        for row in phone.waiting():
            phone.take(row)
        phone.read()
        phone.device.messenger.prune()

    @rule(who=PHONES)
    def deliver_in_any_order(self, who: int) -> None:
        phone = self.phone(who)
        rows = phone.waiting()
        self.world.random.shuffle(rows)
        for row in rows:
            phone.take(row)

    @rule(who=PHONES, pick=PICKS)
    def deliver_one(self, who: int, pick: int) -> None:
        if row := self.waiting_row(who, pick):
            self.phone(who).take(row)

    @rule(who=PHONES, pick=PICKS)
    def deliver_one_whose_acknowledgement_is_lost(self, who: int, pick: int) -> None:
        if row := self.waiting_row(who, pick):
            self.phone(who).take(row, acknowledge=False)
            self.phone(who).disconnect()

    @rule(who=PHONES, pick=PICKS)
    def repeat_any_row_ever(self, who: int, pick: int) -> None:
        phone = self.phone(who)
        rows = [row for row in self.relay.inboxes[phone.address] if row.envelope is not None]
        if rows:
            phone.take(rows[pick % len(rows)], acknowledge=False)

    @rule(who=PHONES, pick=PICKS)
    def drop(self, who: int, pick: int) -> None:
        """The time of an envelope is over. With a request that is lost, so may be what it asked for."""
        row = self.waiting_row(who, pick)
        if row is None:
            return
        row.envelope = None
        if row.message_id in self.books.sent:
            self.books.excuse(row.message_id, "dropped")
            return
        for message_id in self.books.refused:
            sent = self.books.sent.get(message_id)
            if sent and (sent.sender, sent.recipient) == (self.phone(who).address, row.sender):
                self.books.excuse(message_id, "a request was dropped")

    @rule(who=PHONES, pick=PICKS, bit=PICKS)
    def tamper_with_a_body(self, who: int, pick: int, bit: int) -> None:
        row, phone = self.waiting_row(who, pick), self.phone(who)
        if row and row.envelope:
            body = Envelope.decode(row.envelope).body
            waiting = len(phone.device.messenger.inbound())
            reception = phone.device.messenger.receive(changed(row.envelope, body=flip(body, bit % (8 * len(body)))))
            assert phone.hear(row, reception) in (Outcome.UNREADABLE, Outcome.DUPLICATE)
            assert len(phone.device.messenger.inbound()) == waiting

    @rule(who=PHONES, pick=PICKS, bit=PICKS)
    def tamper_with_an_envelope(self, who: int, pick: int, bit: int) -> None:
        """Its head is a claim of the relay anyway. What is shown must still be genuine (see `Phone.read`)."""
        row, phone = self.waiting_row(who, pick), self.phone(who)
        if row and row.envelope:
            envelope = flip(row.envelope, bit % (8 * len(row.envelope)))
            phone.hear(row, phone.device.messenger.receive(envelope))

    # --- what goes wrong in a device -------------------------------------------------------------------------

    @rule(who=PHONES, pick=PICKS, puts=st.integers(0, 8))
    def crash_while_receiving(self, who: int, pick: int, puts: int) -> None:
        row, phone = self.waiting_row(who, pick), self.phone(who)
        if row and row.envelope:
            phone.connect()
            phone.crash(puts, lambda: phone.take(row, acknowledge=False))

    @rule(who=PHONES, whom=PHONES, puts=st.integers(0, 8))
    def crash_while_sending(self, who: int, whom: int, puts: int) -> None:
        phone, peer = self.pair(who, whom)
        phone.say(peer, f"before a crash, {len(self.books.sent)}")
        phone.crash(puts, lambda: phone.say(peer, f"during a crash, {len(self.books.sent)}"))

    @rule(who=PHONES, puts=st.integers(0, 8))
    def crash_while_tending(self, who: int, puts: int) -> None:
        phone = self.phone(who)
        phone.connect()
        phone.crash(puts, lambda: phone.note(phone.device.messenger.tend().notices))

    @rule(who=PHONES, puts=st.integers(0, 8))
    def crash_while_connecting(self, who: int, puts: int) -> None:
        phone = self.phone(who)
        phone.restart()
        phone.crash(puts, phone.say_hello)

    @rule(who=PHONES)
    def restart(self, who: int) -> None:
        self.phone(who).restart()

    @rule(who=PHONES)
    def save_a_copy(self, who: int) -> None:
        self.phone(who).save()

    @rule(who=PHONES, pick=PICKS)
    def put_an_old_copy_back(self, who: int, pick: int) -> None:
        phone = self.phone(who)
        phone.put_back(phone.copies[pick % len(phone.copies)])

    @rule(who=PHONES, whom=PHONES)
    def archive_all_sessions(self, who: int, whom: int) -> None:
        phone, peer = self.pair(who, whom)
        phone.archive_sessions(peer)

    @rule(who=PHONES, days=st.integers(-1, 1))
    def set_a_clock(self, who: int, days: int) -> None:
        self.phone(who).set_clock(days * DAY_MS)

    @rule(milliseconds=st.sampled_from([1, SECOND_MS, 5 * SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS]))
    def wait(self, milliseconds: int) -> None:
        if self.world.now + milliseconds < self.storm_ends:
            self.world.wait(milliseconds)

    # --- the end ---------------------------------------------------------------------------------------------

    @rule()
    def heal(self) -> None:
        """The network is honest and everybody online: soon all is well."""
        for _ in range(ROUNDS_TO_HEAL + sum(phone.lost_one_time_prekeys() for phone in self.phones)):
            self.world.wait(HOUR_MS)
            unread = self.everybody_talks_to_everybody()
            if self.settle() and not unread and all(map(self.agree, permutations(self.phones, 2))):
                break
        else:
            raise AssertionError("the devices do not heal")
        assert self.books.missing() == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.heal()
            self.secrets_are_renewed()

    def everybody_talks_to_everybody(self) -> set[MessageId]:
        """Return what was not read at its first delivery."""
        said = {phone.say(peer, "calm") for phone, peer in permutations(self.phones, 2)}
        for phone in self.phones:
            phone.connect()
            phone.device.post()
        for phone in self.phones:
            for row in phone.waiting():
                if phone.take(row) is Outcome.STORED:
                    said.discard(row.message_id)
        return said

    def agree(self, pair: tuple[Phone, Phone]) -> bool:
        """Whether both ends send on one session, whose post-quantum epochs are in step."""
        phone, peer = pair
        ours, theirs = phone.device.sending_session(peer.device), peer.device.sending_session(phone.device)
        in_step = abs(ours.ratchets.pq.epoch - theirs.ratchets.pq.epoch) <= 1
        return ours.session_id == theirs.session_id and in_step

    def settle(self) -> bool:
        """Let all devices do what is due within a minute, and deliver; return whether nothing is due any more."""
        for _ in range(40):
            dues = [due for phone in self.phones if (due := phone.tend()) is not None]
            rows = [(phone, row) for phone in self.phones for row in phone.waiting()]
            for phone, row in rows:
                phone.take(row)
            if not rows and min(dues, default=DAY_MS) > MINUTE_MS:
                break
            if not rows:
                self.world.wait(min(dues))
        else:
            raise AssertionError("the devices never come to rest")
        for phone in self.phones:
            phone.read()
            phone.device.messenger.prune()
        return not dues

    def secrets_are_renewed(self) -> None:
        """No post-quantum ratchet is stuck: on request a pair agrees on new secrets."""
        pairs = list(permutations(self.phones[:2], 2))
        before = [self.pq_state(*pair).epoch for pair in pairs]
        for phone, peer in pairs:
            phone.heal_now(peer)
        for _ in range(6):
            self.settle()
        for pair, epoch in zip(pairs, before, strict=True):
            assert self.pq_state(*pair).epoch > epoch
            assert not self.pq_state(*pair).turn.healing

    # --- who, and which --------------------------------------------------------------------------------------

    def phone(self, who: int) -> Phone:
        return self.phones[who % len(self.phones)]

    def pair(self, who: int, whom: int) -> tuple[Phone, Phone]:
        phone = self.phone(who)
        others = [each for each in self.phones if each is not phone]
        return phone, others[whom % len(others)]

    def waiting_row(self, who: int, pick: int) -> Row | None:
        rows = self.phone(who).waiting()
        return rows[pick % len(rows)] if rows else None

    def pq_state(self, phone: Phone, peer: Phone) -> PqRatchetState:
        return phone.device.sending_session(peer.device).ratchets.pq


SeveralDevices.TestCase.settings = settings(
    max_examples=RUNS * (SOAK or 1), stateful_step_count=STEPS, derandomize=not SOAK, print_blob=True
)
TestSeveralDevices = pytest.mark.timeout(0 if SOAK else 900)(SeveralDevices.TestCase)
