"""Token buckets: how fast one device may send.

Owns: what each sender has left.
Does not know about: what is being sent.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple, final

from transport_adapters.server.settings import Rate

MAX_BUCKETS: Final = 100_000
"""Senders remembered; the one that sent longest ago is forgotten first."""


class _Level(NamedTuple):
    tokens: float
    at: int


@final
class Buckets:
    """One bucket per sender (a device, say), kept apart from its connection: reconnecting refills nothing."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._levels: OrderedDict[Hashable, _Level] = OrderedDict()

    def take(self, sender: Hashable, now: int) -> float:
        """Take one token. Return 0, or the seconds until there is one (then none was taken)."""
        level = self._levels.pop(sender, _Level(self._rate.burst, now))
        passed = max(0, now - level.at) / 1000
        tokens = min(self._rate.burst, level.tokens + passed * self._rate.per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate.per_second
        self._levels[sender] = _Level(tokens if wait else tokens - 1, now)
        if len(self._levels) > MAX_BUCKETS:
            self._levels.popitem(last=False)
        return wait
