"""Questions that come at the same time are answered together.

Owns: which questions make a group, whose answer is whose, that nobody suffers from the company of others.
Does not know about: what is asked, and how it is answered.

While one group is with the database the next one gathers: a quiet server answers each question by itself at once, and
a busy one needs a few statements for many of them.

A question that needs care (a limit is reached, the same request is under way) is put aside by the group and then
answered alone; and so is each of a group that failed as a whole for any other reason than an absent database.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar, final

from keyserver.postgresql import DatabaseUnavailableError

Q = TypeVar("Q")
A = TypeVar("A")

MAX_GROUP: Final = 64
"""Questions in one group: what it locks, others wait for."""


@final
class Aside:
    """Stands in place of an answer: this question is to be answered alone."""


ASIDE: Final = Aside()

Together = Callable[[Sequence[Q], float], Awaitable[Sequence[A | Aside]]]
"""Answers a group, in its order, within so many seconds."""
Alone = Callable[[Q], Awaitable[A]]


class _Waiting(NamedTuple, Generic[Q, A]):
    question: Q
    answer: "asyncio.Future[A]"
    since: float


@final
class Grouped(Generic[Q, A]):
    """Gathers questions of one kind."""

    def __init__(self, together: Together[Q, A], alone: Alone[Q, A], patience: Callable[[], float]) -> None:
        """`patience` says for how many seconds a question waits, counted from the asking."""
        self._together = together
        self._alone = alone
        self._patience = patience
        self._waiting: deque[_Waiting[Q, A]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Return the answer.

        Raises:
            DatabaseUnavailableError: there is none; of what was to be done, all is done or nothing.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append(_Waiting(question, answer, loop.time()))
        if self._working is None:
            self._working = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                number = min(len(self._waiting), MAX_GROUP)
                await self._answer([self._waiting.popleft() for _ in range(number)])
        finally:
            self._working = None

    async def _answer(self, group: Sequence[_Waiting[Q, A]]) -> None:
        loop = asyncio.get_running_loop()
        # The one that came first has waited longest: nobody waits longer than alone.
        left = max(0.0, self._patience() - (loop.time() - group[0].since))
        answers: Sequence[A | Aside]
        try:
            answers = await self._together([each.question for each in group], left)
        except DatabaseUnavailableError:
            for each in group:
                _refuse(each.answer, DatabaseUnavailableError())
            return
        except Exception:  # noqa: BLE001 - whoever caused it finds it again, and alone
            answers = [ASIDE] * len(group)
        for each, answer in zip(group, answers, strict=True):
            if isinstance(answer, Aside):
                task = loop.create_task(self._answer_alone(each))
                self._aside.add(task)
                task.add_done_callback(self._aside.discard)
            elif not each.answer.done():
                each.answer.set_result(answer)

    async def _answer_alone(self, waiting: _Waiting[Q, A]) -> None:
        try:
            answer = await self._alone(waiting.question)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            _refuse(waiting.answer, error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(answer)


def _refuse(answer: "asyncio.Future[A]", error: Exception) -> None:
    if not answer.done():  # or whoever asked has left
        answer.set_exception(error)
