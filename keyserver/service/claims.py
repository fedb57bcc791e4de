"""Claiming bundles.

Owns: what one claim gets, that a repeated claim gets the same, how often one may claim.
Does not know about: HTTP, SQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from sqlalchemy import Connection

from e2ee.primitives.kdf import sha256
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, PreKeyBundle, SignedPreKey
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.problems import RateLimitedProblem, RequestIdReusedProblem
from keyserver.repository import claims, device_lists, devices, prekeys, rate_limits
from keyserver.repository.claims import ClaimedBundle, ClaimRequest
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.policy import NOBODY, ContactPolicy
from keyserver.tables import PreKeyKind


class Answer(NamedTuple):
    """The user's newest encoded list, and one bundle per active device that can be reached."""

    device_list: bytes | None
    bundles: Sequence[PreKeyBundle]


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


@final
@dataclass(frozen=True, slots=True)
class ClaimService:
    """Hands out bundles. A one-time prekey goes to one request, whatever races, retries or crashes."""

    database: Database
    now: Clock
    policy: ContactPolicy
    limits: ClaimLimits

    async def claim(self, claimer: DeviceAddress, question: Question, request_id: bytes) -> Answer:
        """Claim bundles under a request id of 16 bytes; the same id again gets the same bundles.

        A user that the claimer may not contact looks like one that does not exist.

        Raises:
            RequestIdReusedProblem: the id was used for another question.
            RateLimitedProblem: too often.
        """
        allowed = await self.policy.may_contact(claimer.user_id, question.user_id)
        asked = question if allowed else Question(NOBODY, question.device_ids)
        request = ClaimRequest(claimer, request_id, question.digest())

        def work(connection: Connection) -> Answer:
            earlier = claims.begin(connection, request, self.now())
            if earlier is None:
                self._limit(connection, claimer.user_id, question.user_id, allowed)
                self._claim(connection, request, asked)
            elif earlier != request.question:
                raise RequestIdReusedProblem
            return _answer(connection, request, asked)

        return await self.database.write(work)

    def _limit(self, connection: Connection, claimer: UserId, target: UserId, allowed: bool) -> None:
        # User ids hold no space, so no two names are equal. The bucket that most requests share is locked last.
        # Who is refused has one of their own: strangers must not use up the one of a user's contacts.
        everybody = f"claim {target}" if allowed else f"claim refused {target}"
        for name, limit in (
            (f"claim {target} by {claimer}", self.limits.per_pair),
            (f"claim by {claimer}", self.limits.per_claimer),
            (everybody, self.limits.per_target),
        ):
            wait = rate_limits.take(connection, name, limit, self.now())
            if wait:
                raise RateLimitedProblem(wait)

    def _claim(self, connection: Connection, request: ClaimRequest, asked: Question) -> None:
        now = self.now()
        got = []
        for device_id in devices.active(connection, asked.user_id):
            if asked.device_ids is None or device_id in asked.device_ids:
                address = DeviceAddress(asked.user_id, device_id)
                got.append(_claim_bundle(connection, address, request.request_id, now))
        claims.add_bundles(connection, request, [bundle for bundle in got if bundle is not None])


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


def _answer(connection: Connection, request: ClaimRequest, asked: Question) -> Answer:
    """Put the answer together from what is recorded, so that a first and a repeated request cannot differ."""
    bundles = [
        PreKeyBundle(
            got.address,
            SignedPreKey.decode(Reader(got.signed_prekey)),
            None if got.one_time_prekey is None else OneTimePreKey.decode(Reader(got.one_time_prekey)),
            KemPreKey.decode(Reader(got.kem_prekey)),
        )
        for got in claims.bundles(connection, request)
    ]
    return Answer(device_lists.newest(connection, asked.user_id), bundles)
