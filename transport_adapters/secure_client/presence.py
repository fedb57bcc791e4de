"""Who is there, and who is writing: the client's side of presence.

Owns: what is known of the users we watch, when typing ends by itself, how often it is said.
Does not know about: frames and reconnecting (the transport says everything again), who may see whom (the server).

All of it is the server's word: it is neither encrypted nor signed, and nothing else rests on it.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, final

from e2ee.wire.identifiers import ConversationId, UserId
from transport_adapters import events
from transport_adapters.base import Announce, PresenceSeen, PresenceState, TypeTo, TypingSeen, Watch
from transport_adapters.fields import MAX_WATCHED
from transport_adapters.frames import MAX_LEASE, MIN_LEASE
from transport_adapters.secure_client.opening import application_conversation, application_user
from transport_adapters.secure_client.parts import Parts

TYPING_SECONDS: Final = 6.0
"""How long a word of typing counts at its receiver."""
REPEAT_SECONDS: Final = 3.0
"""How often it is said at most; less than half of how long it counts, so that one may be lost."""
_MAX_TYPING: Final = 1_000
"""Users and conversations whose typing is remembered; a server that names more is not heard."""


@final
class Presence:
    """Reached as `SecureClient.presence`: what this client says about itself, and what it is told about others."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._watched: tuple[UserId, ...] = ()
        self._states: dict[UserId, PresenceState] = {}
        self._typing: dict[tuple[UserId, ConversationId | None], asyncio.TimerHandle] = {}
        self._typed_at: dict[tuple[UserId, ConversationId | None], float] = {}

    async def announce(self, state: PresenceState | str, *, lease: int | None = None) -> None:
        """Let those whom the server's rules allow see that this device is `online` or `away`. Off until called.

        Said again on every connection, for as long as the client is open; `offline` ends it. Of several devices of a
        user, the most present counts. `lease` is after how many seconds of silence the device counts as gone, 10 to 30;
        a shorter one than 30 needs a transport that gives signs of life more often than every 15 seconds.

        Raises:
            ValueError: no such state, or lease out of range.
        """
        announced = PresenceState(state)
        if lease is not None and not MIN_LEASE <= lease <= MAX_LEASE:
            raise ValueError(f"a lease is {MIN_LEASE} to {MAX_LEASE} seconds")
        await self._parts.transport.signal(Announce(announced, None if announced is PresenceState.OFFLINE else lease))

    async def watch(self, users: Iterable[str]) -> None:
        """Be told, by `PresenceChanged`, how these users stand: at most 500, in place of those watched before.

        Who does not want to be seen, or not by us, is `offline` as anybody who is not there.

        Raises:
            ValueError: not user ids, or more than 500.
        """
        wanted = tuple(dict.fromkeys(map(application_user, users)))
        if len(wanted) > MAX_WATCHED:
            raise ValueError(f"at most {MAX_WATCHED} users are watched, not {len(wanted)}")
        self._watched = wanted
        self._states = {user_id: state for user_id, state in self._states.items() if user_id in set(wanted)}
        await self._parts.transport.signal(Watch(wanted))

    async def typing(self, user: str, *, conversation: str | None = None, active: bool = True) -> None:
        """Tell a user who watches us that we are writing; call it with every keystroke, it is said every 3 s at most.

        Works only after `announce`. The server sees it, and the conversation's id if it is named: leave that out
        unless the id says nothing.

        Raises:
            ValueError: not a user id or conversation id.
        """
        named = None if conversation is None else application_conversation(conversation)
        user_id = application_user(user)
        key, now = (user_id, named), asyncio.get_running_loop().time()
        said_at = self._typed_at.pop(key, None)
        self._typed_at = {each: at for each, at in self._typed_at.items() if now - at < TYPING_SECONDS}
        if active and said_at is not None and now - said_at < REPEAT_SECONDS:
            self._typed_at[key] = said_at
            return
        if active:
            self._typed_at[key] = now
        await self._parts.transport.signal(TypeTo(user_id, active, named))

    def state(self, user: str) -> PresenceState:
        """Return how a watched user stands, as far as we were told."""
        return self._states.get(application_user(user), PresenceState.OFFLINE)

    def take(self, seen: PresenceSeen | TypingSeen) -> None:
        """Tell the application what is new to it."""
        if seen.user_id not in self._watched:
            return
        if isinstance(seen, TypingSeen):
            self._take_typing(seen)
        elif self._states.get(seen.user_id) is not seen.state:
            self._states[seen.user_id] = seen.state
            self._parts.emit(events.PresenceChanged(seen.user_id, seen.state))

    def close(self) -> None:
        """Forget whatever would still end by itself."""
        for timer in self._typing.values():
            timer.cancel()
        self._typing.clear()

    def _take_typing(self, seen: TypingSeen) -> None:
        key = seen.user_id, seen.conversation
        timer = self._typing.pop(key, None)
        if timer is not None:
            timer.cancel()
        if not seen.active:
            if timer is not None:
                self._parts.emit(events.TypingStopped(*key))
            return
        if len(self._typing) >= _MAX_TYPING:
            return
        self._typing[key] = asyncio.get_running_loop().call_later(TYPING_SECONDS, self._end_typing, key)
        if timer is None:
            self._parts.emit(events.TypingStarted(*key))

    def _end_typing(self, key: tuple[UserId, ConversationId | None]) -> None:
        if self._typing.pop(key, None) is not None:
            self._parts.emit(events.TypingStopped(*key))
