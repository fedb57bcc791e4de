"""What the parts of a client share: the messenger on its thread, key server, transport, the way to the application.

Owns: calls to the store off the event loop.
Does not know about: what the parts do with it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar, final

from e2ee.messenger import Messenger
from keyserver.client import KeyServerClient
from transport_adapters import events
from transport_adapters.base import EnvelopeTransport

P = ParamSpec("P")
T = TypeVar("T")

TokenProvider = Callable[[], Awaitable[str]]
"""Returns the host application's JWT for the logged-in user."""

OnEvent = Callable[[events.Event], None]

FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0


@final
class StoreThread:
    """Runs calls that touch the store. One thread: the store takes one transaction at a time, and calls keep order."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="e2ee-store")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def close(self) -> None:
        self._pool.shutdown(wait=False)


@final
@dataclass(slots=True)
class Parts:
    """One device's working parts."""

    messenger: Messenger
    thread: StoreThread
    key_server: KeyServerClient
    transport: EnvelopeTransport
    on_event: OnEvent | None
    online: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the relay has answered for the first time."""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the messenger off the event loop."""
        return await self.thread.call(function, *args, **kwargs)

    def emit(self, event: events.Event) -> None:
        """Tell the application, if it listens."""
        if self.on_event is not None:
            self.on_event(event)
