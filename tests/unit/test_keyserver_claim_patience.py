"""A group of claims that is tried again is not given its time again."""

import asyncio
from typing import Any, cast

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.database import Database
from keyserver.repository.claim_groups import Given
from keyserver.repository.rate_limits import RateLimit
from keyserver.service.claims import ClaimLimits, ClaimService, Question, _RefusedError
from keyserver.service.policy import ContactPolicy


class Slow:
    """Refuses the first of a group of two, and takes its time for it."""

    is_sqlite = False

    def __init__(self) -> None:
        self.given: list[float] = []

    @staticmethod
    def patience() -> float:
        return 12.0

    async def write(self, work: Any, *, patience: float = 12.0) -> Any:
        self.given.append(patience)
        kept = work.args[0] if hasattr(work, "args") else []
        if len(kept) == 2:
            await asyncio.sleep(0.02)
            raise _RefusedError(kept[:1])
        return {id(each): Given(None, []) for each in kept} if kept else Given(None, [])


class Everybody:
    async def may_contact(self, claimer: UserId, target: UserId) -> bool:
        return True


async def test_a_second_attempt_without_the_refused_gets_what_is_left_of_the_groups_patience() -> None:
    slow, limit = Slow(), RateLimit(10, 1000)
    service = ClaimService(
        cast(Database, slow), lambda: 0, cast(ContactPolicy, Everybody()), ClaimLimits(limit, limit, limit)
    )
    alice = DeviceAddress(UserId("alice"), DeviceId(bytes(16)))
    question = Question(UserId("bob"), None)
    await asyncio.gather(*(service.claim(alice, question, bytes([number]) * 16) for number in range(2)))
    first, second, *_alone = slow.given
    assert second <= first - 0.015
