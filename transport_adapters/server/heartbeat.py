"""Whether a client is still there.

Owns: when the relay asks for a sign of life, and how long it waits for one.
Does not know about: what follows from silence; transports that have a heartbeat of their own.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, final


@final
class Liveness(Enum):
    """How a transport's client shows that it is there."""

    OWN = auto()
    """The transport has a heartbeat of its own, and ends a dead connection."""
    PINGED = auto()
    """The client answers the relay's `ping` frames."""
    POLLED = auto()
    """The client comes and fetches; until it does, frames wait."""


class Beat(NamedTuple):
    """Seconds between pings (None: there are none), and how long silence may last."""

    interval: float | None
    silence: float


@final
class Heartbeat:
    """One connection's heartbeat: calls `ping` when it is due, and `silent` once, in the end."""

    def __init__(self, beat: Beat, ping: Callable[[], None], silent: Callable[[], None]) -> None:
        self._beat = beat
        self._ping = ping
        self._silent = silent
        self._now = asyncio.get_running_loop().time  # not the relay's clock, which may be set
        self._heard_at = self._now()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_at = self._now()

    async def run(self) -> None:
        """Watch until the client has been silent for too long, or until cancelled."""
        interval, silence = self._beat
        ping_at = self._now() + (silence if interval is None else interval)
        while (left := self._heard_at + silence - self._now()) > 0:
            await asyncio.sleep(min(left, max(0.0, ping_at - self._now())))
            if self._now() >= ping_at:
                ping_at += silence if interval is None else interval
                if interval is not None:
                    self._ping()
        self._silent()
