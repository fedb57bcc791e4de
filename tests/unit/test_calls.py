"""Calls between devices on a simulated line: every state, glare, several devices, words that come late."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.identifiers import CallId, DeviceAddress, UserId
from tests.contract.relay_world import address, eventually, within
from transport_adapters import events
from transport_adapters.secure_client.call_states import TRANSITIONS, CallEnd, CallState, Step
from transport_adapters.secure_client.calls import MAX_CALLS, MAX_RINGING_PER_USER, Call, Calls, CallStateError

ALICE, BOB = UserId("alice"), UserId("bob")
FOREVER = 3600.0


@dataclass
class Phone:
    """One device."""

    owner: DeviceAddress
    calls: Calls
    told: list[events.Event] = field(default_factory=list)

    def rang(self) -> list[Call]:
        return [event.call for event in self.told if isinstance(event, events.CallRinging)]


class Line:
    """Carries what is said to all devices of a user, when the test says so; keeps the order of each pair of devices."""

    def __init__(self, seconds: float = FOREVER) -> None:
        self._seconds = seconds
        self.phones: dict[DeviceAddress, Phone] = {}
        self.waiting: dict[tuple[DeviceAddress, DeviceAddress], deque[CallSignal]] = {}
        self.said: list[tuple[DeviceAddress, CallSignal]] = []

    def phone(self, user: str, device: int = 1) -> Phone:
        owner = address(user, device)

        async def say(user_id: UserId, signal: CallSignal) -> None:
            self.said.append((owner, CallSignal.decode(signal.encode())))
            for to in self.phones:
                if to.user_id == user_id:
                    self.waiting.setdefault((owner, to), deque()).append(signal)

        told: list[events.Event] = []
        calls = Calls(owner.device_id, say, told.append, self._seconds)
        self.phones[owner] = phone = Phone(owner, calls, told)
        return phone

    async def run(self, choose: Callable[[int], int] = lambda _: 0) -> None:
        """Deliver everything, in an order that `choose` picks among the pairs."""
        while True:
            for _ in range(3):
                await asyncio.sleep(0)  # whoever has something to say in the background says it
            pairs = [pair for pair, words in self.waiting.items() if words]
            if not pairs:
                return
            sender, to = pairs[choose(len(pairs))]
            self.phones[to].calls.take(self.waiting[sender, to].popleft(), sender)

    def actions(self, owner: DeviceAddress) -> list[CallAction]:
        return [signal.action for who, signal in self.said if who == owner]

    async def close(self) -> None:
        for phone in self.phones.values():
            await phone.calls.close()


async def ringing(line: Line) -> tuple[Phone, Call, Phone, Call]:
    """Alice rings bob."""
    alice, bob = line.phone("alice"), line.phone("bob")
    ours = await alice.calls.ring(BOB, b"an offer")
    await line.run()
    (theirs,) = bob.rang()
    return alice, ours, bob, theirs


async def test_a_call_is_rung_accepted_and_hung_up() -> None:
    line = Line()
    _, ours, _, theirs = await ringing(line)
    assert (ours.state, theirs.state, theirs.data) == (CallState.CALLING, CallState.RINGING, b"an offer")
    await theirs.accept(b"an answer")
    assert theirs.state is CallState.CONNECTING
    await line.run()
    assert (ours.state, theirs.state, ours.data) == (CallState.ACTIVE, CallState.ACTIVE, b"an answer")
    assert await within(ours.answered())
    await ours.hang_up()
    await line.run()
    assert (await within(ours.ended()), await within(theirs.ended())) == (CallEnd.HUNG_UP, CallEnd.HUNG_UP)
    await line.close()


async def test_a_declined_call_ends_at_both_ends_and_leaves_no_notice() -> None:
    line = Line()
    alice, ours, _, theirs = await ringing(line)
    await theirs.hang_up()  # what rings is declined
    await line.run()
    assert (ours.end, theirs.end) == (CallEnd.DECLINED, CallEnd.DECLINED)
    assert not await within(ours.answered())
    assert CallAction.MISSED not in line.actions(alice.owner)
    await line.close()


async def test_a_call_that_is_given_up_stops_ringing_and_leaves_a_notice() -> None:
    line = Line()
    alice, ours, _, theirs = await ringing(line)
    await ours.hang_up()
    await line.run()
    assert (ours.end, theirs.end) == (CallEnd.CANCELLED, CallEnd.MISSED)
    assert line.actions(alice.owner) == [CallAction.RING, CallAction.HANG_UP, CallAction.MISSED]
    await line.close()


async def test_a_call_that_nobody_answers_ends_at_both_ends_and_leaves_a_notice() -> None:
    line = Line(seconds=0.01)
    alice, ours, _, theirs = await ringing(line)
    assert await within(ours.ended()) is CallEnd.UNANSWERED
    assert await within(theirs.ended()) is CallEnd.MISSED
    await eventually(lambda: line.actions(alice.owner)[-1] is CallAction.MISSED)
    await line.close()


async def test_an_answer_that_the_caller_never_confirms_fails() -> None:
    line = Line(seconds=0.01)
    _, _, _, theirs = await ringing(line)
    await theirs.accept()
    assert await within(theirs.ended()) is CallEnd.FAILED
    await line.close()


@pytest.mark.parametrize("first_answer", ["accept", "decline"])
async def test_the_first_answer_stops_the_ringing_on_the_other_devices(first_answer: str) -> None:
    line = Line()
    alice, one, two = line.phone("alice"), line.phone("bob", 1), line.phone("bob", 2)
    ours = await alice.calls.ring(BOB, b"")
    await line.run()
    await getattr(one.rang()[0], first_answer)()
    await line.run()
    assert two.rang()[0].end is CallEnd.ANSWERED_ELSEWHERE
    accepted = first_answer == "accept"
    assert ours.state is (CallState.ACTIVE if accepted else CallState.ENDED)
    assert one.rang()[0].state is ours.state
    await line.close()


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_devices_that_accept_at_once_one_has_the_call(first: int) -> None:
    line = Line()
    alice, phones = line.phone("alice"), [line.phone("bob", 1), line.phone("bob", 2)]
    ours = await alice.calls.ring(BOB, b"")
    await line.run()
    for phone in (phones[first], phones[1 - first]):
        await phone.rang()[0].accept()
    await line.run()
    assert ours.device == phones[first].owner
    assert [phones[first].rang()[0].state, phones[1 - first].rang()[0].end] == [
        CallState.ACTIVE,
        CallEnd.ANSWERED_ELSEWHERE,
    ]
    await phones[1 - first].calls.close()
    assert ours.state is CallState.ACTIVE
    await line.close()


@given(choices=st.lists(st.integers(0, 7), max_size=40), cross=st.booleans())
@settings(max_examples=60, deadline=None)
def test_two_who_call_at_once_agree_on_one_call_in_every_order(choices: list[int], cross: bool) -> None:
    async def story() -> None:
        picks = iter(choices)

        def choose(count: int) -> int:
            return next(picks, 0) % count

        line = Line()
        phones = [line.phone("alice", 1), line.phone("alice", 2), line.phone("bob", 1), line.phone("bob", 2)]
        alice, bob = phones[0], phones[2]
        one = await alice.calls.ring(BOB, b"")
        if not cross:
            await asyncio.sleep(0)
        two = await bob.calls.ring(ALICE, b"")
        await line.run(choose)
        lower, higher = sorted((one, two), key=lambda call: call.call_id.raw)
        winner, loser = (alice, bob) if lower is one else (bob, alice)
        assert lower.state is CallState.CALLING
        assert higher.end is CallEnd.GLARE
        (rings,) = [call for call in loser.rang() if call.call_id == lower.call_id]
        assert rings.glare
        assert winner.rang() == []
        await rings.accept()
        await line.run(choose)
        assert (lower.state, rings.state) == (CallState.ACTIVE, CallState.ACTIVE)
        going_on = [call for phone in phones for call in phone.rang() if call.end is None]
        assert going_on == [rings]  # on no other device anything rings any more
        await line.close()

    asyncio.run(story())


async def test_a_ring_that_comes_after_its_end_does_not_ring() -> None:
    line = Line()
    bob = line.phone("bob")
    call_id = CallId(bytes(16))
    for action in (CallAction.HANG_UP, CallAction.RING):
        bob.calls.take(CallSignal(call_id, action), address("alice"))
    assert bob.told == []


async def test_the_same_ring_twice_rings_once() -> None:
    line = Line()
    bob = line.phone("bob")
    for _ in range(2):
        bob.calls.take(CallSignal(CallId(bytes(16)), CallAction.RING), address("alice"))
    assert len(bob.rang()) == 1
    await line.close()


async def test_nobody_else_has_a_say_in_a_call() -> None:
    line = Line()
    alice, ours, bob, theirs = await ringing(line)
    other, mallory = address("alice", 9), address("mallory")
    for action in CallAction:
        device_id = bob.owner.device_id if action is CallAction.ANSWERED else None
        signal = CallSignal(ours.call_id, action, device_id=device_id)
        for sender in (other, mallory):
            if action not in (CallAction.RING, CallAction.MISSED):
                bob.calls.take(signal, sender)
        if action is not CallAction.RING:
            alice.calls.take(signal, mallory)
    assert (ours.state, theirs.state) == (CallState.CALLING, CallState.RINGING)
    await theirs.accept()
    await line.run()
    for sender in (address("bob", 9), mallory):
        alice.calls.take(CallSignal(ours.call_id, CallAction.HANG_UP), sender)
    assert ours.state is CallState.ACTIVE
    await line.close()


async def test_rings_without_end_are_not_heard_without_end() -> None:
    line = Line()
    bob = line.phone("bob")
    for number in range(100):
        for caller in range(20):
            name = CallId((number * 20 + caller).to_bytes(16, "big"))
            bob.calls.take(CallSignal(name, CallAction.RING), address(f"caller-{caller}"))
    assert len(bob.rang()) == MAX_CALLS
    per_user = [call.user_id for call in bob.rang()]
    assert max(map(per_user.count, per_user)) <= MAX_RINGING_PER_USER
    await line.close()


async def test_a_word_that_cannot_be_said_leaves_the_call_as_it_is_at_the_other_end() -> None:
    line = Line()
    _, ours, bob, theirs = await ringing(line)
    await theirs.decline()
    with pytest.raises(CallStateError):
        await theirs.accept()
    await line.run()
    with pytest.raises(CallStateError):
        await ours.hang_up()
    assert line.actions(bob.owner) == [CallAction.DECLINE]
    await line.close()


async def test_too_much_data_is_the_callers_bug_and_changes_nothing() -> None:
    line = Line()
    alice, _, _, theirs = await ringing(line)
    with pytest.raises(ValueError):
        await alice.calls.ring(BOB, bytes(3_841))
    with pytest.raises(ValueError):
        await theirs.accept(bytes(3_841))
    assert theirs.state is CallState.RINGING
    await theirs.accept(bytes(3_840))
    await line.close()


async def test_a_ring_that_cannot_be_said_is_over() -> None:
    line = Line()
    told: list[events.Event] = []

    async def say(_user: UserId, _signal: CallSignal) -> None:
        raise OSError("no network")

    calls = Calls(address("alice").device_id, say, told.append, FOREVER)
    with pytest.raises(OSError, match="no network"):
        await calls.ring(BOB, b"")
    (changed,) = told
    assert isinstance(changed, events.CallChanged)
    assert changed.call.end is CallEnd.FAILED
    await line.close()


def test_the_table_has_no_way_out_of_the_end_and_a_way_there_from_everywhere() -> None:
    assert not any(state is CallState.ENDED for state, _ in TRANSITIONS)
    for outcome in TRANSITIONS.values():
        assert (outcome.end is not None) is (outcome.state is CallState.ENDED)
    for state, step in product(CallState, (Step.TIME_IS_UP, Step.THEY_HANG_UP)):
        if state not in (CallState.ENDED, CallState.CALLING, CallState.ACTIVE):
            assert TRANSITIONS[state, step].state is CallState.ENDED


def test_no_word_of_a_call_is_in_its_text() -> None:
    signal = CallSignal(CallId(bytes(16)), CallAction.RING, b"secret of the media")
    assert "secret" not in repr(signal)
