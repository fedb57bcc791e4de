"""Past messages as an application under asyncio sees them, and conversations as they change.

Owns: the calls off the event loop; that whoever watches is told of every change.
Does not know about: what is kept and in which order (e2ee.history).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import BinaryIO, final

from e2ee.backup import Merged
from e2ee.history_book import Conversation, HistoryBook, HistoryEntry
from e2ee.recovery import RecoveryCode
from e2ee.wire.identifiers import ConversationId, MessageId, UserId
from transport_adapters.secure_client.opening import application_conversation, application_user
from transport_adapters.secure_client.parts import Parts

MarkRead = Callable[[UserId, Sequence[MessageId], bool], Awaitable[None]]
"""Marks messages of a user as read; whether the user is told."""
Until = Callable[[asyncio.Event], Awaitable[bool]]
"""Waits for an event or for the end of the client; returns whether the client goes on."""


@final
class History:
    """Reached as `SecureClient.history`. Errors are those of `e2ee.history_book.HistoryBook`.

        await client.history.set_retention(FOREVER)              # once; nothing is kept until then
        async for conversation in client.history.changes():      # all there are, then each that changes
            show(conversation.peer, conversation.unread, conversation.last)
        page = await client.history.messages("bob")              # and with before=page[0].position the page above

    A message that is on its way to `async for message in client` is in the history already, under the same message id.
    An application that shows a conversation reads its newest page again when the conversation changed.
    """

    def __init__(self, parts: Parts, mark_read: MarkRead, until: Until) -> None:
        self._parts, self._mark_read, self._until = parts, mark_read, until
        self._watchers: set[asyncio.Event] = set()

    @property
    def _book(self) -> HistoryBook:
        return self._parts.messenger.history

    def note_change(self) -> None:
        """Let whoever watches look again."""
        for each in self._watchers:
            each.set()

    async def retention(self) -> int:
        """Return how long messages are kept, milliseconds; 0 is not at all, which is the default."""
        return await self._parts.call(self._book.retention)

    async def set_retention(self, milliseconds: int) -> None:
        """Keep what is sent and received from now on for so long, or `FOREVER`; 0 deletes everything."""
        await self._parts.call(self._book.set_retention, milliseconds)
        self.note_change()

    async def merge(self, export: BinaryIO | bytes, code: RecoveryCode) -> Merged:
        """Take an export of our own account in (`Messenger.backup`); return what was new. Messages go on meanwhile.

        Raises:
            See `Backup.merge`.
        """
        steps = self._parts.messenger.backup.merge(export, code)
        whole = Merged()
        while (step := await self._parts.call(next, steps, None)) is not None:
            whole = whole.plus(step)
            self.note_change()
        return whole

    async def conversations(self) -> Sequence[Conversation]:
        """Return the conversations that hold messages, the one with the newest message first."""
        return await self._parts.call(self._book.conversations)

    async def changes(self) -> AsyncIterator[Conversation]:
        """Yield all conversations, and then each one that has changed: a message came or was sent, was read, received
        or deleted. What changes several times while nobody looks is told once. Ends when the client is closed.

        Raises:
            StateError, TransportRefusedError: work in the background ended for this reason.
        """
        changed, seen = asyncio.Event(), 0
        self._watchers.add(changed)
        try:
            while True:
                changed.clear()
                for conversation in await self._parts.call(self._book.changed_after, seen):
                    seen = conversation.change
                    yield conversation
                if not await self._until(changed):
                    return
        finally:
            self._watchers.discard(changed)

    async def messages(
        self, user: str, *, conversation: str | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[HistoryEntry]:
        """Return the newest messages of a conversation, oldest first; `before` a position, to page backwards."""
        names = application_user(user), application_conversation(conversation)
        return await self._parts.call(self._book.messages, *names, before=before, limit=limit)

    async def search(
        self,
        user: str,
        *,
        conversation: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
    ) -> Sequence[HistoryEntry]:
        """Return the first messages that came at or after `since` and before `until`, Unix milliseconds."""
        names = application_user(user), application_conversation(conversation)
        return await self._parts.call(self._book.search, *names, since=since, until=until, limit=limit)

    async def message(self, author: str, message_id: MessageId) -> HistoryEntry | None:
        """Return one message, or None."""
        return await self._parts.call(self._book.message, application_user(author), message_id)

    async def mark_read(
        self, user: str, *, conversation: str | None = None, through: int | None = None, receipt: bool = True
    ) -> None:
        """Mark the messages of a user as read, up to a position; on our other devices, too. Tell the user if `receipt`.

        Raises:
            See `SecureClient.mark_read`.
        """
        user_id: UserId = application_user(user)
        named: ConversationId = application_conversation(conversation)
        unread = await self._parts.call(self._book.unread, user_id, named, through=through)
        if unread:
            await self._mark_read(user_id, unread, receipt)

    async def delete_message(self, author: str, message_id: MessageId) -> bool:
        """Delete a message here, and nowhere else; return whether there was one. It does not come again."""
        deleted = await self._parts.call(self._book.delete_message, application_user(author), message_id)
        self.note_change()
        return deleted

    async def delete_conversation(self, user: str, *, conversation: str | None = None) -> int:
        """Delete the messages of a conversation here, and nowhere else; return how many."""
        names = application_user(user), application_conversation(conversation)
        deleted = await self._parts.call(self._book.delete_conversation, *names)
        self.note_change()
        return deleted
