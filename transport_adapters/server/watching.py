"""What one connection is told about others.

Owns: whom it watches, what it was told last, who may be seen, what waits to be told.
Does not know about: leases and nodes (presence.py).

A user who may not be seen is offline, from the first answer on, and the host's rules are asked about everybody alike:
nothing tells "not to be seen" from "not there" from "no such user". Of each user only the newest state waits, and it is
written when there is room: presence never makes a client count as slow.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, final

from e2ee.limits import MINUTE_MS
from e2ee.wire.identifiers import ConversationId, UserId
from transport_adapters.base import PresenceState
from transport_adapters.frames import MAX_STATES, PresenceReport, Typing
from transport_adapters.server.channel import Outbox
from transport_adapters.server.ports import ContactPolicy

_logger = logging.getLogger(__name__)

PERMISSION_MS: Final = MINUTE_MS
"""How long the host's answer to "may see" counts."""
MAX_TYPING: Final = 32
"""Words of typing that wait for one connection; more are lost."""
BUSY: Final = 64 * 1024
"""Bytes that wait for a client from which on it is not told of typing: that would be old news when it is read."""


class _Permission(NamedTuple):
    answer: bool
    at: int


@final
class Watching:
    """The watched users of one connection of `watcher`."""

    def __init__(self, watcher: UserId, outbox: Outbox, contacts: ContactPolicy, now: Callable[[], int]) -> None:
        self.watcher = watcher
        self.users: frozenset[UserId] = frozenset()
        self._outbox, self._contacts, self._now = outbox, contacts, now
        self._true: dict[UserId, PresenceState] = {}
        self._told: dict[UserId, PresenceState] = {}
        self._permissions: dict[UserId, _Permission] = {}
        self._noted: dict[UserId, None] = {}
        self._typing: dict[tuple[UserId, ConversationId | None], bool] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def restrict(self, users: frozenset[UserId]) -> None:
        """Watch these users and no others. Who stays is not told of again."""
        for user_id in self.users - users:
            self._true.pop(user_id, None)
            self._told.pop(user_id, None)
            self._permissions.pop(user_id, None)
            self._noted.pop(user_id, None)
        self.users = users

    def note(self, user_id: UserId, state: PresenceState) -> None:
        """Take in how a user stands."""
        if user_id not in self.users:
            return
        self._true[user_id] = state
        # Looked at even if nothing changed: the host's answer may have. Not so for one who is gone, and was before.
        if not state is self._told.get(user_id) is PresenceState.OFFLINE:
            self._noted[user_id] = None
            self._wake.set()

    def note_typing(self, typing: Typing) -> None:
        """Take in that a watched user writes to this one."""
        key = typing.user, typing.conversation
        if typing.user in self.users and (key in self._typing or len(self._typing) < MAX_TYPING):
            self._typing[key] = typing.active
            self._wake.set()

    def stop(self) -> None:
        """Tell nothing more."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._noted:
                    await self._tell_some()
                await self._tell_typing()
            except Exception as error:  # noqa: BLE001 - of the host's rules: what they did not allow is not shown
                _logger.error("Presence could not be shown: %s", type(error).__name__)

    async def _tell_some(self) -> None:
        await self._outbox.room()
        some = [next_user for next_user, _ in zip(list(self._noted), range(MAX_STATES), strict=False)]
        for user_id in some:
            self._noted.pop(user_id, None)
        allowed = {user_id: await self._may_see(user_id) for user_id in some}
        news: dict[UserId, PresenceState] = {}
        for user_id in some:
            if user_id in self.users:
                state = self._true[user_id] if allowed[user_id] else PresenceState.OFFLINE
                if self._told.get(user_id) is not state:
                    news[user_id] = self._told[user_id] = state
        if news:
            self._outbox.put(PresenceReport(news))

    async def _tell_typing(self) -> None:
        while self._typing:
            (user_id, conversation), active = self._typing.popitem()
            allowed = await self._may_see(user_id) and user_id in self.users
            if allowed and self._outbox.queued < BUSY:
                self._outbox.put(Typing(user_id, active, conversation))

    async def _may_see(self, user_id: UserId) -> bool:
        """Ask the host, or remember what it said within the last minute."""
        known, now = self._permissions.get(user_id), self._now()
        if known is not None and now - known.at < PERMISSION_MS:
            return known.answer
        answer = await self._contacts.may_see(self.watcher, user_id)
        if user_id in self.users:
            self._permissions[user_id] = _Permission(answer, now)
        return answer
