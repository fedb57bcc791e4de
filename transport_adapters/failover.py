"""Failover: a transport over two routes to the server, a primary and a fallback.

Owns: when the fallback takes over, when the primary is asked again, when it counts as well.
Does not know about: how a connection is made and what goes on over it (link.py, exchange.py).

Both routes belong to one link, so to the server they are one instance with one row of connection numbers: whichever
said `hello` last displaces the other, and neither takes the other for a stranger. A switch is to everybody what any
reconnect is: sends under way raise TransportUnavailableError, and the same bytes go out again; what was not
acknowledged is delivered again, after a `Connected`. While the fallback serves, the primary is asked by a whole
connection, `hello` included, and the fallback is let go when the answer has come. What ends one for good (revoked,
replaced by another program) ends both.

    state     what happens                                                      next
    PRIMARY   the primary failed `max_failures` times in a row                  FALLBACK
    FALLBACK  the primary answered hello                                        TRIAL
    TRIAL     its connection lasted `stable_after` seconds                      PRIMARY
    TRIAL     its connection ended before, or in silence                        FALLBACK

A failure is an attempt that does not come to the answer to `hello`, whatever was in its way; a connection that ends
within `stable_after` seconds; and one that is given up because nothing comes. A connection that lasted ends the row of
failures. That there is no token to connect with is nobody's failure: both routes need one.

The primary is asked after growing, jittered pauses; and at once when the fallback fails as well, so that whichever
comes back first is used, at the pace of reconnecting.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, final

from transport_adapters.base import Incoming, Outgoing, SendResult, SeqRange, Signal
from transport_adapters.exchange import Exchange
from transport_adapters.link import Link, Linked

_logger = logging.getLogger(__name__)


@final
class State(Enum):
    """Which of the two is relied on."""

    PRIMARY = auto()
    FALLBACK = auto()
    """The fallback serves, and the primary is asked now and then."""
    TRIAL = auto()
    """The primary serves again, and has to show that it lasts."""


@final
class Happening(Enum):
    """What changes the state."""

    FAILED = auto()
    """The primary failed as often as it may."""
    ANSWERED = auto()
    """The primary answered hello while the fallback served."""
    LASTED = auto()
    """A connection over the primary lasted."""


TRANSITIONS: Final = {
    (State.PRIMARY, Happening.FAILED): State.FALLBACK,
    (State.PRIMARY, Happening.LASTED): State.PRIMARY,
    (State.FALLBACK, Happening.ANSWERED): State.TRIAL,
    (State.TRIAL, Happening.LASTED): State.PRIMARY,
    (State.TRIAL, Happening.FAILED): State.FALLBACK,
}


@final
@dataclass(frozen=True, slots=True)
class FailoverOptions:
    """Times in seconds."""

    max_failures: int = 3
    """Of the primary in a row, until the fallback takes over. On trial it may not fail at all."""
    stable_after: float = 30.0
    """A connection that ends sooner was a failure."""
    first_probe: float = 15.0
    """After this, and then after twice as long each time, the primary is asked again: after half to all of it."""
    max_probe: float = 600.0
    jitter: Callable[[], float] = random.SystemRandom().random

    def probe_after(self, probes: int) -> float:
        """Return the pause before the primary is asked again, after so many vain attempts or trials."""
        limit = min(self.max_probe, self.first_probe * 2.0 ** min(probes, 16))
        return limit * (1 + self.jitter()) / 2


DEFAULT_FAILOVER: Final = FailoverOptions()


@final
class FailoverTransport:
    """Implements `EnvelopeTransport` over a primary transport and a fallback, both to the same server and device.

    The two lend their routes; they are not to be used besides, and need no closing.
    """

    def __init__(self, primary: Linked, fallback: Linked, options: FailoverOptions = DEFAULT_FAILOVER) -> None:
        if options.max_failures < 1:
            raise ValueError("max_failures is at least 1")
        self._primary, self._fallback = primary.link.route, fallback.link.route
        self._options = options
        self._state = State.PRIMARY
        self._vain = 0
        """Probes and trials in vain, since the primary last lasted."""
        self._fallback_failed = asyncio.Event()
        route = self._primary
        self._link = Link(route.dial, route.token, route.cursor, route.options, self._keep)

    @property
    def state(self) -> State:
        """Which of the two is relied on now."""
        return self._state

    async def send(self, outgoing: Outgoing) -> SendResult:
        """See `EnvelopeTransport.send`."""
        return await self._link.send(outgoing)

    def receive(self) -> AsyncIterator[Incoming]:
        """See `EnvelopeTransport.receive`."""
        return self._link.receive()

    async def ack(self, epoch: int, ranges: Sequence[SeqRange]) -> None:
        """See `EnvelopeTransport.ack`."""
        await self._link.ack(epoch, ranges)

    async def signal(self, signal: Signal) -> None:
        """See `EnvelopeTransport.signal`."""
        await self._link.signal(signal)

    async def aclose(self) -> None:
        """See `EnvelopeTransport.aclose`."""
        await self._link.aclose()

    async def _keep(self, _link: Link) -> None:
        """Keep the link connected, over one route or the other."""
        session: Exchange | None = None
        while True:
            if self._state is State.FALLBACK:
                session = await self._until_primary_answers()
                self._note(Happening.ANSWERED)
            else:
                await self._until_primary_fails(session)
                self._note(Happening.FAILED)

    async def _until_primary_fails(self, session: Exchange | None) -> None:
        """Use the primary until it has failed too often in a row; `session` is a connection that it has already."""
        failures = 0
        while True:
            session = session or await self._link.open(self._primary)
            if session is not None:
                lasted = await self._run(session)
                failures = (0 if lasted else failures) + (1 if session.silent or not lasted else 0)
            if self._state is State.TRIAL or failures >= self._options.max_failures:
                return
            session = None
            await asyncio.sleep(self._primary.options.backoff(failures))

    async def _until_primary_answers(self) -> Exchange:
        """Use the fallback until the primary has answered; return the primary's connection."""
        serving = asyncio.create_task(self._serve())
        serving.add_done_callback(lambda _: self._fallback_failed.set())
        try:
            return await self._probe(serving)
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    async def _serve(self) -> None:
        """Keep the fallback connected, for ever."""
        failures = 0
        while True:
            session = await self._link.open(self._fallback, unless=self._primary)
            if session is not None:
                # One that a probe displaced has not failed.
                failed = not await self._run(session) and session.refusal is None
                failures = failures + 1 if failed else 0
                if failed:
                    self._fallback_failed.set()
            await asyncio.sleep(self._fallback.options.backoff(failures))

    async def _probe(self, serving: "asyncio.Task[None]") -> Exchange:
        while True:
            self._fallback_failed.clear()
            try:
                async with asyncio.timeout(self._options.probe_after(self._vain)):
                    await self._fallback_failed.wait()
            except TimeoutError:
                self._vain += 1
            if serving.done():
                serving.result()  # which is a reason to end
            session = await self._link.open(self._primary)
            if session is not None and session.welcomed:
                return session

    async def _run(self, session: Exchange) -> bool:
        """Run a connection to its end, if it ever began; return whether it lasted."""
        if not session.welcomed:
            return False
        lasted = False

        def last() -> None:
            nonlocal lasted
            lasted = True
            if session.route is self._primary:
                self._vain = 0
                self._note(Happening.LASTED)

        timer = asyncio.get_running_loop().call_later(self._options.stable_after, last)
        try:
            await self._link.run(session)
        finally:
            timer.cancel()
        return lasted

    def _note(self, happening: Happening) -> None:
        before, self._state = self._state, TRANSITIONS[self._state, happening]
        if self._state is not before:
            _logger.info("Failover: from %s to %s", before.name.lower(), self._state.name.lower())
