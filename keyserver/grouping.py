"""Questions that come at the same time are answered together.

Owns: which questions make a group, whose answer is whose, that nobody suffers from the company of others.
Does not know about: what is asked, and how it is answered.

While one group is with the database the next one gathers: a quiet server answers each question by itself at once, and
a busy one needs a few statements for many of them.

A question that needs care (a limit is reached, the same request is under way) is put aside by the group and then
answered alone; and so is each of a group that failed as a whole for any other reason than an absent database.

A row that is locked for long makes a group fail without saying whose it is. Then each is answered alone as well, but
in haste and a few at a time: those who need the row find it locked again, and must not take every thread meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, final

from keyserver.postgresql import DatabaseUnavailableError, RowLockedError

Q = TypeVar("Q")
A = TypeVar("A")

MAX_GROUP: Final = 64
"""Questions in one group: what it locks, others wait for."""

HASTY_AT_ONCE: Final = 4
"""Questions of locked groups that are answered at once, and so the threads of the database that they may occupy."""


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

    def __init__(
        self,
        together: Together[Q, A],
        alone: Alone[Q, A],
        patience: Callable[[], float],
        hastily: Alone[Q, A] | None = None,
    ) -> None:
        """`patience` says for how many seconds a question waits, counted from the asking.

        `hastily` answers alone, and gives up soon if a row is locked. Without it a locked group is refused.
        """
        self._together = together
        self._alone = alone
        self._patience = patience
        self._hastily = hastily
        self._few = asyncio.Semaphore(HASTY_AT_ONCE)
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
        # A timer by itself, which is a third of what `asyncio.timeout` costs each question.
        impatient = loop.call_later(self._patience(), _refuse, answer, DatabaseUnavailableError())
        try:
            return await answer
        finally:
            impatient.cancel()

    async def _work(self) -> None:
        try:
            while group := self._next():
                await self._answer(group)
        finally:
            self._working = None

    def _next(self) -> Sequence[_Waiting[Q, A]]:
        group: list[_Waiting[Q, A]] = []
        while self._waiting and len(group) < MAX_GROUP:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # or whoever asked has left, or lost patience
                group.append(waiting)
        return group

    async def _answer(self, group: Sequence[_Waiting[Q, A]]) -> None:
        # As long as the one waits that came last: the others lose patience each by itself.
        left = max(0.0, self._patience() - (asyncio.get_running_loop().time() - group[-1].since))
        answers: Sequence[A | Aside]
        try:
            answers = await self._together([each.question for each in group], left)
        except DatabaseUnavailableError as error:
            for each in group:
                if isinstance(error, RowLockedError) and self._hastily is not None:
                    self._begin(self._answer_hastily(each, self._hastily))
                else:
                    _refuse(each.answer, DatabaseUnavailableError())
            return
        except Exception:  # noqa: BLE001 - whoever caused it finds it again, and alone
            answers = [ASIDE] * len(group)
        for each, answer in zip(group, answers, strict=True):
            if isinstance(answer, Aside):
                self._begin(self._answer_alone(each, self._alone))
            elif not each.answer.done():
                each.answer.set_result(answer)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _answer_hastily(self, waiting: _Waiting[Q, A], hastily: Alone[Q, A]) -> None:
        async with self._few:
            if not waiting.answer.done():
                await self._answer_alone(waiting, hastily)

    async def _answer_alone(self, waiting: _Waiting[Q, A], alone: Alone[Q, A]) -> None:
        try:
            answer = await alone(waiting.question)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            _refuse(waiting.answer, error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(answer)


def _refuse(answer: "asyncio.Future[A]", error: Exception) -> None:
    if not answer.done():  # or whoever asked has left
        answer.set_exception(error)
