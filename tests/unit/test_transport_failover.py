"""Failover: when the fallback takes over, how the way back is found, and that a switch is no more than a reconnect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from e2ee.wire.identifiers import EnvelopeId
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, eventually, relay_world, within
from transport_adapters.base import (
    Accepted,
    Cursor,
    ListClaim,
    Outgoing,
    TransportRefusedError,
    TransportUnavailableError,
)
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.exchange import LinkOptions, Receiver
from transport_adapters.failover import TRANSITIONS, FailoverOptions, FailoverTransport, Happening, State
from transport_adapters.frames import ClientFrame, Deliver, Error, Hello, Send, Sent, Welcome
from transport_adapters.link import Link
from transport_adapters.memory import MemoryChannel, MemoryTransport, RelayConnection

WELCOME = Welcome(1, 0, 0, 0, 0, 0, 0, 0)
NEVER = 3600.0
OPTIONS = FailoverOptions(max_failures=3, stable_after=NEVER, first_probe=0.01, max_probe=0.02, jitter=lambda: 0.0)
NO_PROBES = replace(OPTIONS, first_probe=NEVER, max_probe=NEVER)


@dataclass
class Way:
    """One route, played by the test."""

    relay: "PlayedRelay"
    name: str
    is_down: bool = False
    answers: bool = True
    """False: it takes hello and says nothing."""
    dials: int = 0
    wires: list["PlayedWire"] = field(default_factory=list)
    options: LinkOptions = EAGER_LINK

    @property
    def link(self) -> Link:
        return Link(self.dial, self.relay.token, self.relay.cursor, self.options)

    async def dial(self, receiver: Receiver) -> "PlayedWire":
        self.dials += 1
        if self.is_down:
            raise OSError("connection refused")
        self.wires.append(PlayedWire(self, receiver))
        return self.wires[-1]

    def hellos(self) -> int:
        return sum(isinstance(frame, Hello) for wire in self.wires for frame in wire.written)


class PlayedWire:
    def __init__(self, way: Way, receiver: Receiver) -> None:
        self.way = way
        self.receiver = receiver
        self.written: list[ClientFrame] = []
        self.is_closed = False

    async def write(self, frame: ClientFrame) -> None:
        self.written.append(frame)
        if isinstance(frame, Hello):
            self.way.relay.admit(self, frame)

    async def close(self) -> None:
        self.is_closed = True

    def say(self, frame: Any) -> None:
        self.receiver.frame(frame.EVENT, frame.to_fields())


@dataclass
class PlayedRelay:
    """Keeps the one rule that matters here: one live connection, the one with the highest number."""

    live: PlayedWire | None = None
    numbers: list[tuple[str, int]] = field(default_factory=list)
    instances: set[bytes] = field(default_factory=set)

    async def token(self) -> str:
        return "token"

    async def cursor(self) -> Cursor:
        return Cursor(0, 0)

    def admit(self, wire: PlayedWire, hello: Hello) -> None:
        assert all(hello.connection > number for _, number in self.numbers)
        self.numbers.append((wire.way.name, hello.connection))
        self.instances.add(hello.instance.raw)
        if self.live is not None:
            self.live.say(Error(ErrorCode.REPLACED, "", close_code=CloseCode.REPLACED))
        self.live = wire
        if wire.way.answers:
            wire.say(WELCOME)


class Scene:
    def __init__(self, options: FailoverOptions = OPTIONS, link: LinkOptions = EAGER_LINK) -> None:
        self.relay = PlayedRelay()
        self.primary = Way(self.relay, "primary", options=link)
        self.fallback = Way(self.relay, "fallback", options=link)
        self.transport = FailoverTransport(self.primary, self.fallback, options)
        self.peer = Peer(self.transport, CursorCell())

    async def on_fallback(self) -> PlayedWire:
        """Let the primary be down, until the fallback serves."""
        self.primary.is_down = True
        if self.primary.wires:
            self.primary.wires[-1].receiver.lost()
        await eventually(lambda: self.relay.live in self.fallback.wires)
        assert self.transport.state is State.FALLBACK
        self.fallback.wires[-1].say(Deliver(1, 1, b"what was told before this has been taken"))
        await self.peer.next()
        while not self.peer.connected.empty():
            self.peer.connected.get_nowait()
        return self.fallback.wires[-1]

    async def close(self) -> None:
        await self.peer.close()
        assert all(wire.is_closed for way in (self.primary, self.fallback) for wire in way.wires)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    await made.close()


def outgoing(n: int) -> Outgoing:
    claim = ListClaim(1, bytes(32))
    return Outgoing(n, bytes(10), EnvelopeId(n.to_bytes(16, "big")), claim, claim)


def test_every_happening_that_can_occur_in_a_state_has_its_row() -> None:
    impossible = {(State.FALLBACK, Happening.FAILED), (State.FALLBACK, Happening.LASTED)}
    impossible |= {(State.PRIMARY, Happening.ANSWERED), (State.TRIAL, Happening.ANSWERED)}
    assert set(TRANSITIONS) | impossible == {(state, happening) for state in State for happening in Happening}
    assert not set(TRANSITIONS) & impossible


def test_a_failover_that_tolerates_no_attempt_at_all_is_the_callers_bug() -> None:
    relay = PlayedRelay()
    with pytest.raises(ValueError):
        FailoverTransport(Way(relay, "a"), Way(relay, "b"), replace(OPTIONS, max_failures=0))


def test_pauses_before_the_primary_is_asked_grow_to_a_limit_and_are_never_nothing() -> None:
    shortest = FailoverOptions(first_probe=15, max_probe=100, jitter=lambda: 0.0)
    longest = replace(shortest, jitter=lambda: 1.0)
    assert [shortest.probe_after(n) for n in range(5)] == [7.5, 15, 30, 50, 50]
    assert [longest.probe_after(n) for n in (0, 3, 10_000)] == [15, 100, 100]


# --- to the fallback -----------------------------------------------------------------------------------------


async def test_while_the_primary_works_the_fallback_is_not_touched(scene: Scene) -> None:
    await scene.peer.online()
    scene.primary.wires[-1].receiver.lost()
    await scene.peer.online()
    assert scene.fallback.dials == 0


async def test_the_fallback_takes_over_after_so_many_failures_to_dial_and_not_before() -> None:
    scene = Scene(NO_PROBES)
    await scene.on_fallback()
    assert scene.primary.dials == 3
    await scene.close()


async def test_a_primary_that_leaves_hello_unanswered_fails() -> None:
    scene = Scene(NO_PROBES, replace(EAGER_LINK, hello_timeout=0.01))
    scene.primary.answers = False
    await scene.peer.online()
    assert scene.primary.hellos() == 3
    assert scene.relay.live in scene.fallback.wires
    await scene.close()


async def test_a_primary_that_ends_before_its_answer_fails() -> None:
    scene = Scene(NO_PROBES)
    scene.primary.answers = False
    for _ in range(3):
        count = scene.primary.hellos()
        await eventually(lambda count=count: scene.primary.hellos() > count)
        scene.primary.wires[-1].receiver.lost()
    await scene.peer.online()
    assert scene.relay.live in scene.fallback.wires
    await scene.close()


async def test_a_primary_whose_connections_die_soon_after_hello_fails() -> None:
    scene = Scene(NO_PROBES)
    for _ in range(3):
        await scene.peer.online()
        scene.primary.wires[-1].receiver.lost()
    await scene.peer.online()
    assert scene.relay.live in scene.fallback.wires
    await scene.close()


async def test_connections_that_lasted_may_end_as_often_as_they_like() -> None:
    scene = Scene(replace(NO_PROBES, stable_after=0.0))
    for _ in range(5):
        await scene.peer.online()
        await asyncio.sleep(0.001)
        scene.primary.wires[-1].receiver.lost()
    await scene.peer.online()
    assert scene.fallback.dials == 0
    await scene.close()


async def test_a_connection_that_lasted_ends_the_row_of_failures() -> None:
    scene = Scene(replace(NO_PROBES, stable_after=0.05))
    for _ in range(3):
        scene.primary.is_down = True
        dials = scene.primary.dials
        await eventually(lambda dials=dials: scene.primary.dials >= dials + 2)
        if scene.primary.dials == dials + 2:  # else this machine was too slow to say what is meant
            scene.primary.is_down = False
        await scene.peer.online()
        if scene.relay.live in scene.fallback.wires:
            break
        await asyncio.sleep(0.1)
        scene.primary.wires[-1].receiver.lost()
    else:
        assert scene.fallback.dials == 0
    await scene.close()


async def test_silence_is_a_failure_however_long_the_connection_lasted() -> None:
    scene = Scene(replace(NO_PROBES, stable_after=0.0))
    for _ in range(2):
        await scene.peer.online()
        await asyncio.sleep(0.001)
        scene.primary.wires[-1].receiver.lost(silent=True)
        # It comes no further than to hello, so this one is in the same row.
        scene.primary.is_down = True
    await eventually(lambda: scene.relay.live in scene.fallback.wires)
    assert scene.primary.dials == 1 + 2
    await scene.close()


async def test_that_there_is_no_token_is_no_failure_of_the_primary() -> None:
    scene, asked = Scene(NO_PROBES), list[int]()

    async def token() -> str:
        asked.append(1)
        if len(asked) < 8:
            raise RuntimeError("the key server is down")
        return "token"

    await scene.close()
    scene.relay.token = token  # type: ignore[method-assign] # as a test may
    transport = FailoverTransport(scene.primary, scene.fallback, NO_PROBES)
    peer = Peer(transport, CursorCell())
    await peer.online()
    assert (len(asked), scene.fallback.dials) == (8, 0)
    await peer.close()


# --- and back ------------------------------------------------------------------------------------------------


async def test_the_fallback_serves_until_the_primary_has_answered_hello(scene: Scene) -> None:
    wire = await scene.on_fallback()
    dials = scene.primary.dials
    await eventually(lambda: scene.primary.dials >= dials + 5)
    assert scene.relay.live is wire
    assert not wire.is_closed
    sending = asyncio.create_task(scene.transport.send(outgoing(1)))
    await eventually(lambda: any(isinstance(frame, Send) for frame in wire.written))
    wire.say(Sent(outgoing(1).envelope_id, duplicate=False))
    assert isinstance(await within(sending), Accepted)
    scene.primary.is_down = False
    await scene.peer.online()
    assert scene.relay.live in scene.primary.wires
    await eventually(lambda: wire.is_closed and scene.transport.state is State.TRIAL)


async def test_the_primary_is_in_use_again_for_good_once_it_has_lasted() -> None:
    scene = Scene(replace(OPTIONS, stable_after=0.05))
    await scene.on_fallback()
    scene.primary.is_down = False
    await eventually(lambda: scene.transport.state is State.PRIMARY)
    # It may fail again now, and is not left at once.
    await scene.peer.online()
    scene.primary.wires[-1].receiver.lost()
    await scene.peer.online()
    assert scene.relay.live in scene.primary.wires
    await scene.close()


async def test_a_primary_that_fails_on_trial_is_left_at_once() -> None:
    scene = Scene()
    await scene.on_fallback()
    scene.primary.is_down = False
    await eventually(lambda: scene.transport.state is State.TRIAL)
    dials, on_fallback = scene.primary.dials, scene.fallback.hellos()
    scene.primary.is_down = True
    scene.primary.wires[-1].receiver.lost()
    await eventually(lambda: scene.fallback.hellos() > on_fallback)
    assert scene.transport.state is State.FALLBACK
    assert scene.primary.dials - dials <= 1
    await scene.close()


async def test_a_primary_that_flaps_is_asked_ever_more_seldom() -> None:
    pauses: list[float] = []

    @dataclass(frozen=True)
    class Recorded:
        max_failures: int = 3
        stable_after: float = NEVER

        def probe_after(self, vain: int) -> float:
            pauses.append(OPTIONS.probe_after(vain))
            return 0.0

    scene = Scene(Recorded())  # type: ignore[arg-type] # has what is asked of it
    await scene.on_fallback()
    scene.primary.is_down = False
    for _ in range(4):
        hellos = scene.primary.hellos()
        await eventually(lambda hellos=hellos: scene.primary.hellos() > hellos)
        scene.primary.wires[-1].receiver.lost()
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0]
    await scene.close()


async def test_when_both_are_down_whichever_is_back_first_is_used() -> None:
    for first in ("primary", "fallback"):
        scene = Scene(NO_PROBES)
        wire = await scene.on_fallback()
        scene.fallback.is_down = True
        wire.receiver.lost()
        dials = scene.primary.dials
        await eventually(lambda scene=scene, dials=dials: scene.primary.dials >= dials + 2)
        back = getattr(scene, first)
        back.is_down = False
        await scene.peer.online()
        assert scene.relay.live in back.wires
        await scene.close()


async def test_a_probe_that_displaces_the_fallback_and_then_fails_costs_a_reconnect() -> None:
    scene = Scene(OPTIONS, replace(EAGER_LINK, hello_timeout=0.02))
    await scene.on_fallback()
    scene.primary.answers = False
    scene.primary.is_down = False
    for _ in range(3):
        await scene.peer.online()
    assert not scene.peer.outcome.done()
    assert scene.transport.state is State.FALLBACK
    await scene.close()


async def test_the_fallback_says_no_hello_while_the_primary_is_about_to_answer() -> None:
    scene = Scene(OPTIONS)
    wire = await scene.on_fallback()
    scene.primary.answers = False
    scene.primary.is_down = False
    hellos = scene.fallback.hellos()
    await eventually(lambda: scene.relay.live in scene.primary.wires)
    dials = scene.fallback.dials
    await eventually(lambda: scene.fallback.dials > dials)  # displaced, it has dialled anew
    assert wire.receiver is not None
    assert scene.fallback.hellos() == hellos
    scene.primary.wires[-1].say(WELCOME)
    await scene.peer.online()
    await eventually(lambda: all(each.is_closed for each in scene.fallback.wires))
    assert scene.fallback.hellos() == hellos
    assert scene.relay.live in scene.primary.wires
    await scene.close()


# --- what a switch is to others ------------------------------------------------------------------------------


async def test_both_are_one_instance_with_one_row_of_numbers(scene: Scene) -> None:
    await scene.on_fallback()
    scene.primary.is_down = False
    await scene.peer.online()
    assert len(scene.relay.instances) == 1
    assert len({name for name, _ in scene.relay.numbers}) == 2
    numbers = [number for _, number in scene.relay.numbers]
    assert numbers == sorted(set(numbers))


async def test_sends_under_way_at_the_switch_fail_and_go_out_again_over_the_other(scene: Scene) -> None:
    wire = await scene.on_fallback()
    sending = asyncio.create_task(scene.transport.send(outgoing(1)))
    await eventually(lambda: any(isinstance(frame, Send) for frame in wire.written))
    scene.primary.is_down = False
    with pytest.raises(TransportUnavailableError):
        await within(sending)
    await scene.peer.online()
    sending = asyncio.create_task(scene.transport.send(outgoing(1)))
    await eventually(lambda: any(isinstance(frame, Send) for frame in scene.primary.wires[-1].written))
    scene.primary.wires[-1].say(Sent(outgoing(1).envelope_id, duplicate=True))
    assert await within(sending) == Accepted(outgoing(1).envelope_id, duplicate=True)


async def test_no_send_called_before_a_switch_overtakes_those_that_were_lost_at_it() -> None:
    scene = Scene(OPTIONS, replace(EAGER_LINK, max_unanswered=2))
    wire = await scene.on_fallback()
    sends = [asyncio.create_task(scene.transport.send(outgoing(n))) for n in range(1, 9)]
    await eventually(lambda: sum(isinstance(frame, Send) for frame in wire.written) == 2)
    scene.primary.is_down = False
    results = await within(asyncio.gather(*sends, return_exceptions=True))
    assert {type(each) for each in results} == {TransportUnavailableError}
    await scene.peer.online()
    assert not [frame for frame in scene.primary.wires[-1].written if isinstance(frame, Send)]
    await scene.close()


async def test_connected_comes_first_after_a_switch_and_nothing_of_the_old_connection_after_it(scene: Scene) -> None:
    wire = await scene.on_fallback()
    await scene.peer.close()
    transport = FailoverTransport(scene.primary, scene.fallback, OPTIONS)
    arrivals = transport.receive()
    scene.relay.live = None
    scene.relay.numbers.clear()
    await within(anext(arrivals))
    wire = scene.fallback.wires[-1]
    scene.primary.is_down = False
    wire.say(Deliver(1, 1, b"from the fallback, not taken in time"))
    await eventually(lambda: scene.relay.live in scene.primary.wires)
    scene.primary.wires[-1].say(Deliver(1, 1, b"from the primary"))
    wire.say(Deliver(1, 2, b"from the fallback, too late"))
    scene.primary.wires[-1].say(Deliver(1, 2, b"also from the primary"))
    first, *rest = [await within(anext(arrivals)) for _ in range(3)]
    assert type(first).__name__ == "Connected"
    assert [getattr(each, "envelope", None) for each in rest] == [b"from the primary", b"also from the primary"]
    await transport.aclose()


# --- the end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [CloseCode.REVOKED, CloseCode.REPLACED, CloseCode.TOO_LARGE])
@pytest.mark.parametrize("serving", ["primary", "fallback"])
async def test_what_ends_one_for_good_ends_both(code: CloseCode, serving: str) -> None:
    scene = Scene(NO_PROBES)
    if serving == "fallback":
        await scene.on_fallback()
    else:
        await scene.peer.online()
    names = {CloseCode.REVOKED: ErrorCode.DEVICE_REVOKED, CloseCode.REPLACED: ErrorCode.REPLACED}
    wire = getattr(scene, serving).wires[-1]
    wire.say(Error(names.get(code, ErrorCode.TOO_LARGE), "", close_code=code))
    error = await within(scene.peer.outcome)
    assert isinstance(error, TransportRefusedError)
    assert error.close_code == code
    with pytest.raises(TransportUnavailableError):
        await scene.transport.send(outgoing(1))
    dials = scene.primary.dials, scene.fallback.dials
    await asyncio.sleep(0.02)
    assert (scene.primary.dials, scene.fallback.dials) == dials
    await scene.close()


async def test_a_probe_that_is_refused_for_good_ends_both(scene: Scene) -> None:
    await scene.on_fallback()
    scene.primary.answers = False
    scene.primary.is_down = False
    await eventually(lambda: scene.relay.live in scene.primary.wires)
    refusal = Error(ErrorCode.DEVICE_REVOKED, "", close_code=CloseCode.REVOKED)
    scene.primary.wires[-1].say(refusal)
    error = await within(scene.peer.outcome)
    assert isinstance(error, TransportRefusedError)
    assert error.reason == "device_revoked"


async def test_closing_leaves_nothing_whatever_was_going_on() -> None:
    for moment in range(40):
        scene = Scene(replace(OPTIONS, first_probe=0.0, stable_after=0.0))
        scene.primary.is_down = moment % 3 == 0
        scene.fallback.is_down = moment % 5 == 0
        for _ in range(moment):
            await asyncio.sleep(0)
        await scene.close()


# --- over the real relay -------------------------------------------------------------------------------------


class Gate:
    """A way to a relay of this process that may be shut."""

    def __init__(self, world: RelayWorld) -> None:
        self._world = world
        self._open: list[tuple[RelayConnection, MemoryChannel]] = []
        self.is_shut = False

    def connect(self, channel: MemoryChannel) -> RelayConnection:
        if self.is_shut:
            raise OSError("the gate is shut")
        connection = self._world.relay.connect(channel)
        self._open.append((connection, channel))
        return connection

    async def shut(self) -> None:
        self.is_shut = True
        ending, self._open = self._open, []
        for connection, channel in ending:
            connection.disconnected()
            await channel.close(CloseCode.DRAINING)


async def test_the_relay_takes_both_routes_for_one_program(tmp_path: Path) -> None:
    async with relay_world(tmp_path) as world:
        alice, bob = await world.device("alice"), await world.device("bob")
        gates = Gate(world), Gate(world)

        def opened(owner: Any, make: Callable[..., Any]) -> Peer:
            async def token() -> str:
                return world.tokens.issue(owner)

            cell = CursorCell()
            return Peer(make(token, cell), cell)

        def over(token: Any, cursor: Any) -> FailoverTransport:
            ways = [MemoryTransport(gate, token=token, cursor=cursor, options=EAGER_LINK) for gate in gates]
            return FailoverTransport(ways[0], ways[1], OPTIONS)

        at_alice = opened(alice, lambda token, cell: MemoryTransport(world.relay, token=token, cursor=cell))
        at_bob = opened(bob, over)
        await at_alice.online()
        for number in range(6):
            await at_bob.online()
            sent = world.outgoing(alice, bob)
            await within(at_alice.transport.send(sent))
            delivery = await at_bob.next()
            assert delivery.envelope == sent.envelope
            await at_bob.ack(delivery)
            # The answer to a send says that the ack before it was processed.
            await within(at_bob.transport.send(world.outgoing(bob, alice)))
            if number % 2 == 0:
                await gates[0].shut()
            else:
                gates[0].is_shut = False
        assert not at_bob.outcome.done()
        for peer in (at_alice, at_bob):
            await peer.close()
