"""Questions that come together are answered together, and nobody notices the others."""

import asyncio
from collections.abc import Sequence

import pytest

from keyserver.grouping import ASIDE, MAX_GROUP, Aside, Grouped
from keyserver.postgresql import DatabaseUnavailableError


class Answers:
    """Doubles numbers. A number may be put aside, spoil its group, or find the database away."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.alone: list[int] = []
        self.patience: list[float] = []
        self.aside: set[int] = set()
        self.spoiling: set[int] = set()
        self.unavailable: set[int] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.grouped = Grouped(self._together, self._one, lambda: 12.0)

    async def ask(self, *numbers: int) -> list[int | BaseException]:
        return await asyncio.gather(*map(self.grouped.ask, numbers), return_exceptions=True)

    async def _together(self, group: Sequence[int], patience: float) -> Sequence[int | Aside]:
        self.groups.append([*group])
        self.patience.append(patience)
        await self.go_on.wait()
        if self.unavailable & {*group}:
            raise DatabaseUnavailableError
        if self.spoiling & {*group}:
            raise ArithmeticError
        return [ASIDE if each in self.aside else 2 * each for each in group]

    async def _one(self, number: int) -> int:
        self.alone.append(number)
        if number in self.spoiling:
            raise ArithmeticError(number)
        return 2 * number


async def test_what_comes_while_a_group_is_under_way_is_the_next_group() -> None:
    answers = Answers()
    answers.go_on.clear()
    first = asyncio.create_task(answers.ask(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = asyncio.create_task(answers.ask(2, 3, 4))
    await asyncio.sleep(0)
    answers.go_on.set()
    assert (await first, await rest) == ([2], [4, 6, 8])
    assert answers.groups == [[1], [2, 3, 4]]


async def test_a_group_has_an_end_and_everybody_an_answer() -> None:
    answers = Answers()
    numbers = range(2 * MAX_GROUP + 1)
    assert await answers.ask(*numbers) == [2 * each for each in numbers]
    assert [len(group) for group in answers.groups] == [MAX_GROUP, MAX_GROUP, 1]


async def test_who_is_put_aside_is_answered_alone_and_nobody_waits_for_him() -> None:
    answers = Answers()
    answers.aside = {2}
    assert await answers.ask(1, 2, 3) == [2, 4, 6]
    assert answers.alone == [2]


async def test_a_question_that_spoils_its_group_fails_alone() -> None:
    answers = Answers()
    answers.spoiling = {2}
    one, two, three = await answers.ask(1, 2, 3)
    assert (one, three) == (2, 6)
    assert isinstance(two, ArithmeticError)
    assert two.args == (2,), "by its own doing"
    assert await answers.ask(4) == [8]


async def test_a_database_that_is_away_is_told_to_its_group_and_to_no_other() -> None:
    answers = Answers()
    answers.unavailable = {0}
    got = await answers.ask(*range(MAX_GROUP + 1))
    assert all(isinstance(each, DatabaseUnavailableError) for each in got[:MAX_GROUP])
    assert len({*map(id, got[:MAX_GROUP])}) == MAX_GROUP, "an error of one's own: tracebacks grow where one is raised"
    assert got[MAX_GROUP] == 2 * MAX_GROUP
    assert answers.alone == []


async def test_somebody_who_leaves_takes_nobodys_answer_with_him() -> None:
    answers = Answers()
    answers.go_on.clear()
    leaving = asyncio.create_task(answers.grouped.ask(1))
    staying = asyncio.create_task(answers.grouped.ask(2))
    while not answers.groups:  # noqa: ASYNC110 - a few steps of this loop
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    answers.go_on.set()
    assert await staying == 4


async def test_patience_counts_from_the_asking_and_not_from_the_group() -> None:
    answers = Answers()
    answers.go_on.clear()
    first = asyncio.create_task(answers.grouped.ask(1))
    while not answers.groups:  # noqa: ASYNC110 - a few steps of this loop
        await asyncio.sleep(0)
    late = asyncio.create_task(answers.grouped.ask(2))
    before = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    waited = asyncio.get_running_loop().time() - before
    answers.go_on.set()
    await asyncio.gather(first, late)
    assert answers.patience[1] <= 12.0 - waited
