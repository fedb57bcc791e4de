"""Carrying the messages of two devices of one user, one of which is being linked.

Owns: four places per link that are written once and in order, for ten minutes.
Does not know about: HTTP, SQL, what the messages say: the two devices trust nothing of it.
"""

from dataclasses import dataclass
from typing import final

from sqlalchemy import Connection

from e2ee.limits import LINK_LIFETIME_MS
from e2ee.wire.link import LinkSlot
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import LinkNotFoundProblem, LinkOrderProblem, LinkSlotTakenProblem, RateLimitedProblem
from keyserver.repository import links, rate_limits
from keyserver.repository.links import Place
from keyserver.repository.rate_limits import RateLimit


@final
@dataclass(frozen=True, slots=True)
class LinkService:
    """Keeps the messages of links."""

    database: Database
    now: Clock
    limit: RateLimit

    async def put(self, place: Place, body: bytes) -> None:
        """Write a message into its place; the same bytes again change nothing. The first one begins a link.

        Raises:
            LinkSlotTakenProblem: the place holds other bytes.
            LinkNotFoundProblem: there is no such link of this user (any more).
            LinkOrderProblem: the message before this one is missing.
            RateLimitedProblem: too many new links.
        """
        await self.database.write(lambda connection: self._put(connection, place, body))

    async def message(self, place: Place) -> bytes | None:
        """Return the message in a place; None if it is still empty.

        Raises:
            LinkNotFoundProblem: there is no such link of this user (any more).
        """
        return await self.database.read(lambda connection: self._message(connection, place))

    def _message(self, connection: Connection, place: Place) -> bytes | None:
        self._expiry(connection, place)
        found = links.find(connection, place)
        return None if found is None else found[0]

    def _put(self, connection: Connection, place: Place, body: bytes) -> None:
        expires_at = (
            self._begin(connection, place) if place.slot is LinkSlot.COMMIT else self._expiry(connection, place)
        )
        if place.slot is not LinkSlot.COMMIT and links.find(connection, place.at(LinkSlot(place.slot - 1))) is None:
            raise LinkOrderProblem
        if links.add(connection, place, body, expires_at):
            return
        found = links.find(connection, place)
        if found is None or found[0] != body:
            raise LinkSlotTakenProblem

    def _begin(self, connection: Connection, place: Place) -> int:
        if links.find(connection, place) is not None:
            return self._expiry(connection, place)
        wait = rate_limits.take(connection, f"link {place.user_id}", self.limit, self.now())
        if wait:
            raise RateLimitedProblem(wait)
        return self.now() + LINK_LIFETIME_MS

    def _expiry(self, connection: Connection, place: Place) -> int:
        first = links.find(connection, place.at(LinkSlot.COMMIT))
        if first is None or first[1] <= self.now():
            raise LinkNotFoundProblem
        return first[1]
