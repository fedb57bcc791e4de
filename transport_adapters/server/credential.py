"""The device token of one connection: whether it counts, and for how long.

Owns: verification, expiry and grace, asking again.
Does not know about: frames; what follows from a token that does not count.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol, final

from transport_adapters.server.ports import Principal, TokenVerifier
from transport_adapters.server.settings import RelaySettings


class Authority(Protocol):
    """What a credential needs of its relay."""

    tokens: TokenVerifier
    settings: RelaySettings
    cuts: int

    @property
    def now(self) -> Callable[[], int]:
        """The clock: Unix milliseconds."""
        ...


class Expiry(NamedTuple):
    """What to do when the token has expired, and when its grace is over as well."""

    expired: Callable[[], None]
    overdue: Callable[[], None]


@final
class Credential:
    """Holds the newest token of a connection."""

    def __init__(self, authority: Authority, expiry: Expiry) -> None:
        self._authority = authority
        self._expiry = expiry
        self._token = ""
        self._timers: list[asyncio.TimerHandle] = []

    async def judge(self, token: str) -> Principal:
        """Verify a token, again if somebody was cut off meanwhile: it may have been this device, not live yet.

        Raises:
            TokenRefusedError: it does not count.
        """
        while True:
            cuts = self._authority.cuts
            principal = await self._authority.tokens.verify(token)
            if cuts == self._authority.cuts:
                return principal

    async def judge_again(self) -> None:
        """Verify the token that is held.

        Raises:
            TokenRefusedError: it does not count any more.
        """
        await self._authority.tokens.verify(self._token)

    def hold(self, token: str, principal: Principal) -> None:
        """Keep a token that was judged, in place of the one before."""
        self.drop()
        self._token = token
        left = max(0.0, (principal.expires_at - self._authority.now()) / 1000)
        grace = self._authority.settings.token_grace
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(left, self._expiry.expired),
            loop.call_later(left + grace, self._expiry.overdue),
        ]

    def drop(self) -> None:
        """Forget the token."""
        self._token = ""
        for timer in self._timers:
            timer.cancel()
        self._timers = []
