"""The work that goes on while a client is open, and its end.

Owns: the tasks, why they ended, waiting for something that the end cuts short.
Does not know about: what the tasks do, the store, the network.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, final

from e2ee.errors import E2EEError
from transport_adapters import events
from transport_adapters.base import TransportRefusedError
from transport_adapters.secure_client.parts import OnEvent

Work = Callable[[], Coroutine[Any, Any, None]]


@final
class Background:
    """Tasks that end together: when one of them fails, or when the client is closed."""

    def __init__(self, emit: OnEvent) -> None:
        self._emit = emit
        self._tasks: list[asyncio.Task[None]] = []
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> bool:
        """Whether a task has failed, or the client is closing: from then on there may be no store to ask."""
        return self._end.done()

    def start(self, work: Iterable[Work]) -> None:
        """Start the tasks."""
        for each in work:
            task = asyncio.create_task(each())
            task.add_done_callback(self._note_end)
            self._tasks.append(task)

    def finish(self) -> None:
        """End without a failure, for whoever waits; the tasks go on until `cancel`."""
        if not self.ended:
            self._end.set_result(None)

    async def cancel(self) -> None:
        """Cancel the tasks, and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, event: asyncio.Event) -> None:
        """Wait for an event, or for the end.

        Raises:
            StateError, TransportRefusedError: a task failed for this reason.
        """
        waiter = asyncio.ensure_future(event.wait())
        either: set[asyncio.Future[Any]] = {waiter, self._end}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        self.check()

    async def goes_on(self, event: asyncio.Event) -> bool:
        """Wait for an event; return False at an end without failure.

        Raises:
            StateError, TransportRefusedError: a task failed for this reason.
        """
        if not self.ended:
            await self.until(event)
        self.check()
        return not self.ended

    def check(self) -> None:
        """Raise the failure that all ended with, if there is one.

        Raises:
            StateError, TransportRefusedError: a task failed for this reason.
        """
        if self.ended:
            self._end.result()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Hand a task's failure to whoever waits."""
        if task.cancelled() or self.ended:
            return
        error = task.exception()
        if error is not None:
            self._end.set_exception(error)
            self._end.exception()  # mark it as retrieved: perhaps nobody waits, which is no error
            self._emit(events.Ended(_code(error)))


def _code(error: BaseException) -> str:
    if isinstance(error, TransportRefusedError):
        return error.reason
    return error.code if isinstance(error, E2EEError) else type(error).__name__
