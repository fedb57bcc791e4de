"""Claiming bundles.

Owns: what one claim gets, that a repeated claim gets the same, how often one may claim.
Does not know about: HTTP, SQL.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, final

from sqlalchemy import Connection

from e2ee.primitives.kdf import sha256
from e2ee.wire.codec import Writer
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.grouping import ASIDE, Aside, Grouped
from keyserver.postgresql import wait_for_rows
from keyserver.problems import RateLimitedProblem, RequestIdReusedProblem
from keyserver.repository import claim_groups, claims, device_lists, devices, prekeys, rate_limits
from keyserver.repository.claim_groups import Buckets, Given, Wanted
from keyserver.repository.claims import ClaimedBundle, ClaimRequest
from keyserver.repository.logins import Presumed
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.policy import NOBODY, ContactPolicy
from keyserver.tables import PreKeyKind

GROUP_LOCK_MS: Final = 2_000
"""How long a group waits for a row that another transaction holds. A group holds its own for a small part of that."""
HASTY_LOCK_MS: Final = 200
"""How long each of a group that met such a row waits for one, alone: a few at a time, all within their patience."""

Answer = Given
"""The user's newest encoded list, and one bundle per active device that can be reached."""


class Question(NamedTuple):
    """Whose bundles are asked for; of all active devices, or of the named ones."""

    user_id: UserId
    device_ids: frozenset[DeviceId] | None

    def digest(self) -> bytes:
        """Return 32 bytes that two different questions do not share."""
        writer = Writer().ascii8(self.user_id).u8(self.device_ids is not None)
        for device_id in sorted(self.device_ids or ()):
            writer.raw(device_id.raw)
        return sha256(writer.finish())


class ClaimLimits(NamedTuple):
    """How often one user may claim from another, from everybody, and how often everybody from one."""

    per_pair: RateLimit
    per_claimer: RateLimit
    per_target: RateLimit


class Doubt(NamedTuple):
    """A claimer whose token is good if its login stands: a group's first statement looks, or `settle` by itself."""

    presumed: Presumed
    settle: Callable[[], Awaitable[None]]
    """Looks, and raises what is wrong."""


class _Ask(NamedTuple):
    """One claim, once it is known whether it is allowed."""

    request: ClaimRequest
    wanted: Wanted
    buckets: Buckets
    doubt: Doubt | None


class _RefusedError(Exception):
    """These of a group would exceed a limit; the others are tried without them."""

    def __init__(self, asks: Sequence[_Ask]) -> None:
        super().__init__()
        self.asks: Final = frozenset(map(id, asks))


@final
class ClaimService:
    """Hands out bundles. A one-time prekey goes to one request, whatever races, retries or crashes.

    On PostgreSQL the claims of one moment share a transaction (repository/claim_groups.py). SQLite's writer does the
    same for whatever is written (database.py).
    """

    def __init__(self, database: Database, now: Clock, policy: ContactPolicy, limits: ClaimLimits) -> None:
        self._database = database
        self._now = now
        self._policy = policy
        self._limits = limits
        hastily = partial(self._alone, lock_ms=HASTY_LOCK_MS)
        self._grouped = Grouped(self._together, self._alone, database.patience, hastily)

    async def claim(
        self, claimer: DeviceAddress, question: Question, request_id: bytes, doubt: Doubt | None = None
    ) -> Answer:
        """Claim bundles under a request id of 16 bytes; the same id again gets the same bundles.

        A user that the claimer may not contact looks like one that does not exist. With a doubt about the claimer, it
        is settled before anything is recorded, and before anything else is refused.

        Raises:
            RequestIdReusedProblem: the id was used for another question.
            RateLimitedProblem: too often.
        """
        try:
            allowed = await self._policy.may_contact(claimer.user_id, question.user_id)
        except Exception:
            if doubt is not None:
                await doubt.settle()
            raise
        whom = question.user_id if allowed else NOBODY
        request = ClaimRequest(claimer, request_id, question.digest())
        buckets = _buckets(claimer.user_id, question.user_id, allowed=allowed)
        ask = _Ask(request, Wanted(whom, question.device_ids), buckets, doubt)
        return await (self._alone(ask) if self._database.is_sqlite else self._grouped.ask(ask))

    async def _alone(self, ask: _Ask, lock_ms: int | None = None) -> Answer:
        if ask.doubt is not None:
            await ask.doubt.settle()

        def work(connection: Connection) -> Answer:
            if lock_ms is not None:
                wait_for_rows(connection, lock_ms)
            earlier = claims.begin(connection, ask.request, self._now())
            if earlier is None:
                self._limit(connection, ask.buckets)
                self._claim(connection, ask)
            elif earlier != ask.request.question:
                raise RequestIdReusedProblem
            return _answer(connection, ask)

        return await self._database.write(work)

    async def _together(self, group: Sequence[_Ask], patience: float) -> Sequence[Answer | Aside]:
        # The same request twice in one group: the second is a repetition.
        first = {(each.request.claimer, each.request.request_id): each for each in reversed(group)}
        kept = list(first.values())
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience  # of all attempts, for the next group waits as well
        while kept:
            left = max(0.0, deadline - clock())
            try:
                answers = await self._database.write(partial(self._claim_all, kept), patience=left)
            except _RefusedError as refused:
                kept = [each for each in kept if id(each) not in refused.asks]
            else:
                return [answers.get(id(each), ASIDE) for each in group]
        return [ASIDE] * len(group)

    def _claim_all(self, group: Sequence[_Ask], connection: Connection) -> dict[int, Answer]:
        """Claim for all whose request is new. By the identity of the asks.

        Who is missing is a repetition, or does not stand.
        """
        now = self._now()
        asked = [(each.request, each.buckets, None if each.doubt is None else each.doubt.presumed) for each in group]
        outcomes = claim_groups.begin(connection, asked, self._limits, now, GROUP_LOCK_MS)
        refused = [each for each, outcome in zip(group, outcomes, strict=True) if outcome is False]
        if refused:
            raise _RefusedError(refused)
        fresh = [each for each, outcome in zip(group, outcomes, strict=True) if outcome]
        answers = claim_groups.claim(connection, [(each.request, each.wanted) for each in fresh], now)
        return {id(each): answer for each, answer in zip(fresh, answers, strict=True)}

    def _limit(self, connection: Connection, buckets: Buckets) -> None:
        for name, limit in zip(buckets, self._limits, strict=True):
            wait = rate_limits.take(connection, name, limit, self._now())
            if wait:
                raise RateLimitedProblem(wait)

    def _claim(self, connection: Connection, ask: _Ask) -> None:
        now = self._now()
        got = []
        for device_id in devices.active(connection, ask.wanted.user_id):
            if ask.wanted.device_ids is None or device_id in ask.wanted.device_ids:
                address = DeviceAddress(ask.wanted.user_id, device_id)
                got.append(_claim_bundle(connection, address, ask.request.request_id, now))
        claims.add_bundles(connection, ask.request, [bundle for bundle in got if bundle is not None])


def _buckets(claimer: UserId, target: UserId, *, allowed: bool) -> Buckets:
    # User ids hold no space, so no two names are equal. The bucket that most requests share is locked last.
    # Who is refused has one of their own: strangers must not use up the one of a user's contacts.
    everybody = f"claim {target}" if allowed else f"claim refused {target}"
    return Buckets(f"claim {target} by {claimer}", f"claim by {claimer}", everybody)


def _claim_bundle(connection: Connection, address: DeviceAddress, request_id: bytes, now: int) -> ClaimedBundle | None:
    """Take one device's bundle; None, and nothing taken, if it offers no usable signed or KEM prekey."""
    signed = prekeys.offered(connection, address, PreKeyKind.SIGNED, now)
    if signed is None:
        return None
    kem = prekeys.claim_one_time_prekey(connection, address, PreKeyKind.ONE_TIME_KEM, request_id, now)
    if kem is None:  # not `or`: zero is a valid id
        kem = prekeys.offered(connection, address, PreKeyKind.LAST_RESORT_KEM, now)
    if kem is None:
        return None
    one_time = prekeys.claim_one_time_prekey(connection, address, PreKeyKind.ONE_TIME, request_id, now)
    return ClaimedBundle(address, signed, one_time, kem)


def _answer(connection: Connection, ask: _Ask) -> Answer:
    """Put the answer together from what is recorded, so that a first and a repeated request cannot differ."""
    return Answer(device_lists.newest(connection, ask.wanted.user_id), claims.bundles(connection, ask.request))
