"""Questions that come together are answered together, and nobody notices the others."""

import asyncio
from collections.abc import Sequence

import pytest

from keyserver.grouping import ASIDE, HASTY_AT_ONCE, MAX_GROUP, Aside, Grouped
from keyserver.postgresql import DatabaseUnavailableError, RowLockedError


class Answers:
    """Doubles numbers. A number may be put aside, spoil its group, or find the database away."""

    def __init__(self, patience: float = 12.0, *, is_hasty: bool = True) -> None:
        self.groups: list[list[int]] = []
        self.alone: list[int] = []
        self.patience: list[float] = []
        self.aside: set[int] = set()
        self.spoiling: set[int] = set()
        self.unavailable: set[int] = set()
        self.locked: set[int] = set()
        self.hasty: list[int] = []
        self.hasty_at_once = 0
        self._hasty_now = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.grouped = Grouped(self._together, self._one, lambda: patience, self._hastily if is_hasty else None)

    async def ask(self, *numbers: int) -> list[int | BaseException]:
        return await asyncio.gather(*map(self.grouped.ask, numbers), return_exceptions=True)

    async def _together(self, group: Sequence[int], patience: float) -> Sequence[int | Aside]:
        self.groups.append([*group])
        self.patience.append(patience)
        self.begun.set()
        await self.go_on.wait()
        if self.unavailable & {*group}:
            raise DatabaseUnavailableError
        if self.locked & {*group}:
            raise RowLockedError
        if self.spoiling & {*group}:
            raise ArithmeticError
        return [ASIDE if each in self.aside else 2 * each for each in group]

    async def _one(self, number: int) -> int:
        self.alone.append(number)
        if number in self.spoiling:
            raise ArithmeticError(number)
        return 2 * number

    async def _hastily(self, number: int) -> int:
        self.hasty.append(number)
        self._hasty_now += 1
        self.hasty_at_once = max(self.hasty_at_once, self._hasty_now)
        await asyncio.sleep(0)
        self._hasty_now -= 1
        if number in self.locked:
            raise RowLockedError
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
    await answers.begun.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    answers.go_on.set()
    assert await staying == 4


async def test_patience_counts_from_the_asking_and_not_from_the_group() -> None:
    answers = Answers()
    answers.go_on.clear()
    first = asyncio.create_task(answers.grouped.ask(1))
    await answers.begun.wait()
    late = asyncio.create_task(answers.grouped.ask(2))
    before = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    waited = asyncio.get_running_loop().time() - before
    answers.go_on.set()
    await asyncio.gather(first, late)
    assert answers.patience[1] <= 12.0 - waited


async def test_of_a_group_that_meets_a_locked_row_only_those_who_need_it_are_refused() -> None:
    answers = Answers()
    answers.locked = {2, 5}
    got = await answers.ask(*range(MAX_GROUP))
    assert [number for number, each in enumerate(got) if isinstance(each, DatabaseUnavailableError)] == [2, 5]
    assert [each for each in got if isinstance(each, int)] == [
        2 * each for each in range(MAX_GROUP) if each not in (2, 5)
    ]
    assert answers.hasty_at_once == HASTY_AT_ONCE, "or they take all threads of the database"
    assert answers.alone == []


async def test_a_locked_group_is_refused_where_nobody_answers_hastily() -> None:
    answers = Answers(is_hasty=False)
    answers.locked = {2}
    assert all(isinstance(each, DatabaseUnavailableError) for each in await answers.ask(1, 2, 3))


async def test_a_newcomer_is_not_given_the_patience_that_the_oldest_of_the_group_has_left() -> None:
    answers = Answers()
    answers.go_on.clear()
    first = asyncio.create_task(answers.grouped.ask(1))
    await answers.begun.wait()
    oldest = asyncio.create_task(answers.grouped.ask(2))
    await asyncio.sleep(0.02)
    asked_at = asyncio.get_running_loop().time()
    newcomer = asyncio.create_task(answers.grouped.ask(3))
    await asyncio.sleep(0)
    answers.go_on.set()
    await asyncio.gather(first, oldest, newcomer)
    assert answers.groups == [[1], [2, 3]]
    assert answers.patience[1] >= 12.0 - (asyncio.get_running_loop().time() - asked_at)


async def test_who_loses_patience_is_told_so_and_what_he_asked_is_not_begun_any_more() -> None:
    answers = Answers(patience=0.02)
    answers.go_on.clear()
    first = asyncio.create_task(answers.ask(1))
    await answers.begun.wait()
    (late,) = await answers.ask(2)
    assert isinstance(late, DatabaseUnavailableError)
    answers.go_on.set()
    await first
    assert await answers.ask(3) == [6]
    assert answers.groups == [[1], [3]]
