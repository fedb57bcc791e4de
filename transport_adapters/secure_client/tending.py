"""What the client does by itself for messages that could not be read, here or at the other end.

Owns: when the messenger is asked what is due, and fetching what it lacks for it.
Does not know about: what is due, and why (e2ee.tending).
"""

import asyncio
import contextlib
from typing import Final, final

from e2ee.errors import DeviceListStaleError, ProtocolError, TrustError
from e2ee.limits import SECOND_MS
from e2ee.tending import Tended
from transport_adapters import events
from transport_adapters.secure_client.directory import Directory, UserUnreachableError
from transport_adapters.secure_client.outbound import Outbound
from transport_adapters.secure_client.parts import LOCAL_FAULTS, SERVER_TROUBLE, Parts

_TROUBLE: Final = (
    *SERVER_TROUBLE,
    *LOCAL_FAULTS,
    UserUnreachableError,
    ProtocolError,
    TrustError,
    DeviceListStaleError,
)
"""Why a device may be out of reach for now."""


@final
class Tending:
    """Calls `Messenger.tend` whenever something may be due."""

    def __init__(self, parts: Parts, directory: Directory, outbound: Outbound) -> None:
        self._parts, self._directory, self._outbound = parts, directory, outbound
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Say that something may be due."""
        self._changed.set()

    async def run(self) -> None:
        """Tend, for ever."""
        setbacks = 0
        while True:
            # What comes in together is asked for together: a device may ask once a minute.
            await self._parts.caught_up.wait()
            await asyncio.sleep(self._parts.pace.first_retry)
            self._changed.clear()
            tended = await self._tend()
            if tended.lacks:
                await self._fetch(tended)
                tended = await self._tend()
            setbacks = setbacks + 1 if tended.lacks else 0
            pause = None if tended.again_in is None else tended.again_in / SECOND_MS
            await self._rest(self._parts.pace.retry(setbacks) if setbacks else pause)

    async def _tend(self) -> Tended:
        tended = await self._parts.commit(self._parts.messenger.tend)
        for notice in tended.notices:
            self._parts.emit(notice)
        if tended.queued:
            self._outbound.wake()
        return tended

    async def _fetch(self, tended: Tended) -> None:
        """Fetch what lacks. One device that is out of reach does not hold up the others."""
        for user_id in tended.stale_lists:
            await self._directory.repair_lists(user_id)
        for device in tended.sessions_wanted:
            try:
                await self._directory.start_anew(device)
            except _TROUBLE as error:
                self._parts.emit(events.Trouble(error.code))

    async def _rest(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
