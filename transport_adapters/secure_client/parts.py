"""What the parts of a client share: the messenger on its thread, key server, transport, the way to the application.

Owns: calls to the store off the event loop, the patience with local faults, what a raising callback may do: nothing.
Does not know about: what the parts do with it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar, final

from e2ee.errors import StoreLockedError, StoreUnavailableError
from e2ee.messenger import Messenger
from keyserver.client import KeyServerClient, KeyServerError
from transport_adapters import events
from transport_adapters.base import EnvelopeTransport, TransportError

P = ParamSpec("P")
T = TypeVar("T")

TokenProvider = Callable[[], Awaitable[str]]
"""Returns the host application's JWT for the logged-in user."""

OnEvent = Callable[[events.Event], None]

LOCAL_FAULTS: Final = (StoreUnavailableError, StoreLockedError)
"""Faults of the disk, which may pass. Of the other StateErrors none does."""
_LOCAL_FAULT_TRIES: Final = 5


@final
class TokenProviderError(TransportError):
    """The application's token provider raised; its error is the cause of this one."""

    code = "token_provider_failed"
    remedy = "Look at the cause: the token provider is the application's own"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The token provider raised {reason}")


SERVER_TROUBLE: Final = (KeyServerError, TokenProviderError)
"""Why a call of the key server's client may fail; trying again later may help."""


@final
@dataclass(frozen=True, slots=True)
class Pace:
    """How long work in the background waits before it tries again, in seconds. Waits double from first to longest."""

    first_retry: float = 1.0
    longest_retry: float = 60.0
    prekey_check: float = 600.0
    prune: float = 6 * 3600.0
    ring: float = 60.0
    """How long a call rings, at most a minute."""

    def retry(self, failures: int) -> float:
        """Return the wait after so many failures in a row, 1 or more."""
        return min(self.first_retry * 2.0 ** min(failures - 1, 16), self.longest_retry)


DEFAULT_PACE: Final = Pace()


@final
class StoreThread:
    """Runs calls that touch the store. One thread: the store takes one transaction at a time, and calls keep order."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="e2ee-store")
        self._closed = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call and return its result. One that runs is finished, even if its caller is cancelled.

        Raises:
            RuntimeError: the client is closed.
        """
        if self._closed:
            raise RuntimeError("the client is closed")
        return await self._run(lambda: function(*args, **kwargs))

    async def close(self, last: Callable[[], None]) -> None:
        """Take no more calls, finish those that were begun, run `last`, end the thread."""
        self._closed = True
        try:
            await self._run(last)
        finally:
            self._pool.shutdown()

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)


@final
@dataclass(slots=True)
class Parts:
    """One device's working parts."""

    messenger: Messenger
    thread: StoreThread
    key_server: KeyServerClient
    transport: EnvelopeTransport
    on_event: OnEvent | None = None
    pace: Pace = DEFAULT_PACE
    online: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the relay has answered for the first time."""
    restarted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the mailbox has another epoch than before: the server may have forgotten what this device told it."""
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once everything that waited at the relay then is committed here."""
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the messenger off the event loop."""
        return await self.thread.call(function, *args, **kwargs)

    async def commit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call for work in the background. Local faults (I/O, lock) are tried again, 5 times in all.

        Raises:
            StateError: the fault stayed, or is none that passes. Nothing was committed.
        """
        for failures in range(1, _LOCAL_FAULT_TRIES):
            try:
                return await self.call(function, *args, **kwargs)
            except LOCAL_FAULTS as error:
                self.emit(events.Trouble(error.code))
                await asyncio.sleep(self.pace.retry(failures))
        return await self.call(function, *args, **kwargs)

    async def tell_failures(self) -> None:
        """Tell the application of every send that was given up; after a crash perhaps of one for the second time."""
        async with self._telling:
            failed = await self.commit(self.messenger.outbox.failed)
            for each in failed:
                self.emit(events.SendFailed(each.message_id, each.recipient, each.code))
            if failed:
                await self.commit(self.messenger.outbox.failures_told, [each.envelope_id for each in failed])

    def emit(self, event: events.Event) -> None:
        """Tell the application, if it listens. What its callback raises goes to the loop's exception handler."""
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except Exception as error:  # noqa: BLE001 - of the application: no bug there may stop the traffic
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "on_event raised an exception", "exception": error})


def checked(host_token: TokenProvider) -> TokenProvider:
    """Give whatever a token provider raises one name, so that work in the background outlives it."""

    async def provide() -> str:
        try:
            return await host_token()
        except Exception as error:
            raise TokenProviderError(type(error).__name__) from error

    return provide
