"""Calls: ring, accept, decline, hang up. Of media it knows nothing: `data` is the application's own, an SDP perhaps.

Owns: the calls that go on, their timers, what each step makes us say (protocol.md section 9.8).
Does not know about: which step leads where (call_states.py), encryption, lanes.

Nothing of a call is stored: it is over before a restart is. What stays is the notice of a missed call, which the caller
leaves behind.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, assert_never, final

from e2ee.errors import E2EEError
from e2ee.limits import CALL_TTL_SECONDS
from e2ee.wire.call_signal import CallAction, CallSignal
from e2ee.wire.identifiers import CallId, DeviceAddress, DeviceId, UserId
from keyserver.client import KeyServerError
from transport_adapters import events
from transport_adapters.base import TransportError
from transport_adapters.secure_client.call_states import TRANSITIONS, CallEnd, CallState, Step

Say = Callable[[UserId, CallSignal], Awaitable[None]]

MAX_CALLS: Final = 16
"""Calls that go on at once; those who ring beyond it are not heard, and find nobody there."""
MAX_RINGING_PER_USER: Final = 2
_MAX_ENDED: Final = 1_000
"""Ended calls remembered, so that a late word does not make them ring again."""


@final
class CallStateError(Exception):
    """The call is not in a state in which this can be done: perhaps it has just ended."""

    code = "call_state"

    def __init__(self, step: Step, state: CallState) -> None:
        super().__init__(f"{step.value}: not while the call is {state.value}")
        self.state = state


@final
class Call:
    """One call, as this device sees it. Made by `SecureClient.call`, or handed over by `events.CallRinging`."""

    def __init__(self, calls: "Calls", call_id: CallId, user_id: UserId, state: CallState) -> None:
        self._calls = calls
        self.call_id = call_id
        self.user_id = user_id
        """The other end's user."""
        self.device: DeviceAddress | None = None
        """The other end's device, once it is known."""
        self.state = state
        self.end: CallEnd | None = None
        self.data = b""
        """What the other end's application said with its ring or its answer; opaque."""
        self.glare = False
        """Both called at once, and this is the call that goes on: accept it without asking."""
        self._timer: asyncio.TimerHandle | None = None
        self._answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[CallEnd] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Call {self.call_id} with {self.user_id}, {self.state.value}>"

    async def accept(self, data: bytes = b"") -> None:
        """Accept a call that rings; it is `active` once the caller says that this device's answer counts.

        Raises:
            CallStateError: it does not ring (any more).
            ValueError: more than 3,840 bytes.
            See `SecureClient.send`. The call goes on ringing at the other end until its time is up.
        """
        await self._calls.answer(self, Step.WE_ACCEPT, self._signal(CallAction.ACCEPT, data))

    async def decline(self, data: bytes = b"") -> None:
        """Decline a call that rings, on all of our devices.

        Raises:
            See `accept`.
        """
        await self._calls.answer(self, Step.WE_DECLINE, self._signal(CallAction.DECLINE, data))

    async def hang_up(self, data: bytes = b"") -> None:
        """End a call, or give up one that nobody has answered. One that rings here is declined instead.

        Raises:
            See `accept`.
        """
        if self.state is CallState.RINGING:
            await self.decline(data)
        else:
            await self._calls.answer(self, Step.WE_HANG_UP, self._signal(CallAction.HANG_UP, data))

    async def answered(self) -> bool:
        """Wait until the call is active, or over; return whether it became active."""
        return await asyncio.shield(self._answered)

    async def ended(self) -> CallEnd:
        """Wait until the call is over; return why."""
        return await asyncio.shield(self._over)  # a caller that gives up waiting is not the only one

    def _signal(self, action: CallAction, data: bytes = b"") -> CallSignal:
        return CallSignal(self.call_id, action, data)

    def _enter(self, state: CallState, end: CallEnd | None, deadline: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.state, self.end, self._timer = state, end, deadline
        if state in (CallState.ACTIVE, CallState.ENDED) and not self._answered.done():
            self._answered.set_result(state is CallState.ACTIVE)
        if end is not None:
            self._over.set_result(end)


@final
class Calls:
    """The calls of one device."""

    def __init__(self, device_id: DeviceId, say: Say, emit: Callable[[events.Event], None], seconds: float) -> None:
        """`say` encrypts a signal to all devices of a user and queues it; a call rings for so many `seconds`."""
        self._device_id, self._say, self._emit = device_id, say, emit
        self._seconds = min(seconds, CALL_TTL_SECONDS)
        self._calls: dict[tuple[UserId, CallId], Call] = {}
        self._ended: OrderedDict[tuple[UserId, CallId], None] = OrderedDict()
        self._saying: set[asyncio.Task[None]] = set()

    async def ring(self, user_id: UserId, data: bytes) -> Call:
        """Ring all devices of a user."""
        call = Call(self, CallId(secrets.token_bytes(CallId.LENGTH)), user_id, CallState.CALLING)
        signal = call._signal(CallAction.RING, data)
        # Noted before it is said: their own ring may cross it.
        self._begin(call)
        try:
            await self._say(user_id, signal)
        except BaseException:
            self._finish(call, CallEnd.FAILED)
            raise
        return call

    async def answer(self, call: Call, step: Step, signal: CallSignal) -> None:
        """Take a step of our own, and say so."""
        if (call.state, step) not in TRANSITIONS:
            raise CallStateError(step, call.state)
        was_calling = call.state is CallState.CALLING
        self._step(call, step)
        await self._say(call.user_id, signal)
        if was_calling:
            await self._say(call.user_id, call._signal(CallAction.MISSED))

    def take(self, signal: CallSignal, sender: DeviceAddress) -> None:
        """Take in what the other end says. What does not fit, or comes from a device without a say, means nothing."""
        key = sender.user_id, signal.call_id
        call = self._calls.get(key)
        if signal.action is CallAction.RING:
            if call is None and key not in self._ended:
                self._hear_ring(signal, sender)
            return
        if call is None:
            # What came first may be overtaken by what ends it.
            self._remember(key)
            return
        match signal.action:
            case CallAction.ACCEPT | CallAction.DECLINE:
                self._hear_answer(call, signal, sender)
            case CallAction.HANG_UP | CallAction.ANSWERED:
                if sender == call.device:
                    self._step(call, self._hear_partner(signal))
            case CallAction.MISSED:
                pass  # comes through the store
            case _:
                assert_never(signal.action)

    async def close(self) -> None:
        """Hang up whatever goes on; nobody is told any more, and all timers stop."""
        for call in list(self._calls.values()):
            self._finish(call, CallEnd.HUNG_UP)
        for task in self._saying:
            task.cancel()
        await asyncio.gather(*self._saying, return_exceptions=True)

    # --- what they say

    def _hear_ring(self, signal: CallSignal, sender: DeviceAddress) -> None:
        call = Call(self, signal.call_id, sender.user_id, CallState.RINGING)
        call.device, call.data = sender, signal.data
        ours = [each for each in self._with(sender.user_id) if each.state is CallState.CALLING]
        if any(each.call_id.raw < signal.call_id.raw for each in ours):
            # Glare, and our call goes on. The other end finds the same, and takes its own back.
            self._remember((sender.user_id, signal.call_id))
            return
        for each in ours:
            call.glare = True
            self._step(each, Step.THEIR_CALL_WINS)
            self._say_later(each.user_id, each._signal(CallAction.HANG_UP))
        ringing = [each for each in self._with(sender.user_id) if each.state is CallState.RINGING]
        if len(self._calls) >= MAX_CALLS or len(ringing) >= MAX_RINGING_PER_USER:
            return
        self._begin(call)
        self._emit(events.CallRinging(call))

    def _hear_answer(self, call: Call, signal: CallSignal, sender: DeviceAddress) -> None:
        """The first answer counts; all devices of the other end are told whose it was."""
        if call.state is not CallState.CALLING:
            return
        call.device, call.data = sender, signal.data
        answered = CallSignal(call.call_id, CallAction.ANSWERED, device_id=sender.device_id)
        self._say_later(call.user_id, answered)
        self._step(call, Step.THEY_ACCEPT if signal.action is CallAction.ACCEPT else Step.THEY_DECLINE)

    def _hear_partner(self, signal: CallSignal) -> Step:
        if signal.action is CallAction.HANG_UP:
            return Step.THEY_HANG_UP
        is_us = signal.device_id == self._device_id
        return Step.OUR_ANSWER_COUNTS if is_us else Step.ANOTHERS_ANSWER_COUNTS

    # --- steps

    def _step(self, call: Call, step: Step) -> None:
        """Go where the table leads; a step that it does not have there comes too late, and changes nothing."""
        outcome = TRANSITIONS.get((call.state, step))
        if outcome is None:
            return
        if outcome.end is not None:
            self._finish(call, outcome.end)
        else:
            call._enter(outcome.state, None, self._deadline(call) if outcome.state is CallState.CONNECTING else None)
            self._emit(events.CallChanged(call))

    def _begin(self, call: Call) -> None:
        self._calls[call.user_id, call.call_id] = call
        call._enter(call.state, None, self._deadline(call))

    def _finish(self, call: Call, end: CallEnd) -> None:
        if call.state is CallState.ENDED:
            return
        self._calls.pop((call.user_id, call.call_id), None)
        self._remember((call.user_id, call.call_id))
        call._enter(CallState.ENDED, end, None)
        self._emit(events.CallChanged(call))

    def _deadline(self, call: Call) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._seconds, self._time_is_up, call)

    def _time_is_up(self, call: Call) -> None:
        was = call.state
        self._step(call, Step.TIME_IS_UP)
        if was is CallState.CALLING:
            self._say_later(call.user_id, call._signal(CallAction.HANG_UP))
            self._say_later(call.user_id, call._signal(CallAction.MISSED))
        elif was is CallState.CONNECTING:
            self._say_later(call.user_id, call._signal(CallAction.HANG_UP))

    def _with(self, user_id: UserId) -> list[Call]:
        return [call for call in self._calls.values() if call.user_id == user_id]

    def _remember(self, key: tuple[UserId, CallId]) -> None:
        self._ended[key] = None
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    # --- what we say

    def _say_later(self, user_id: UserId, signal: CallSignal) -> None:
        """Say something that nobody waits for. If it fails, the other end's time runs out."""

        async def say() -> None:
            try:
                await self._say(user_id, signal)
            except (E2EEError, TransportError, KeyServerError) as error:
                self._emit(events.Trouble(error.code))

        task = asyncio.create_task(say())
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)
