"""What an application shows of past messages: conversations, their messages, what was read; and what it lets go.

Owns: one transaction for each call; the values in which an application says what it wants.
Does not know about: where messages come from, the network, when somebody looks.

The history is kept in the device's own store, encrypted like everything else there, if the application asks for it. It
is written in the transaction that decrypts or sends, so it can neither lack a message nor hold one twice.
"""

from collections.abc import Callable
from typing import Final, final

from e2ee import history
from e2ee.history import Conversation
from e2ee.limits import MAX_TIMESTAMP
from e2ee.ports import Store
from e2ee.stores import history_records
from e2ee.stores.history_records import FOREVER, EntryState, HistoryEntry
from e2ee.wire.identifiers import ConversationId, MessageId, UserId

__all__ = ["FOREVER", "Conversation", "EntryState", "HistoryBook", "HistoryEntry"]

_DEFAULT_CONVERSATION: Final = ConversationId("")


@final
class HistoryBook:
    """The history of one device. Reached as `Messenger.history`; every method is one transaction."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store, self._clock = store, clock

    def retention(self) -> int:
        """Return how long messages are kept, milliseconds: `FOREVER`, or 0 for not at all, which is the default."""
        with self._store.read() as tx:
            return history_records.retention(tx)

    def set_retention(self, milliseconds: int) -> None:
        """Keep what is sent and received from now on for so long; `FOREVER`; 0 deletes everything and keeps nothing.

        What is older goes at once, and later whenever `Messenger.outbox.expire` or `Messenger.prune` is called.

        Raises:
            ValueError: negative, or above `FOREVER`.
        """
        if not 0 <= milliseconds <= FOREVER:
            raise ValueError("a retention is 0 to FOREVER milliseconds")
        with self._store.write() as tx:
            history_records.set_retention(tx, milliseconds)
            history.forget_old(tx, self._clock())

    def conversations(self) -> list[Conversation]:
        """Return the conversations that hold messages, the one with the newest message first."""
        with self._store.read() as tx:
            found = [(each.last.position, each) for each in history.conversations(tx) if each.last is not None]
        return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def changed_after(self, change: int) -> list[Conversation]:
        """Return the conversations that changed after a `Conversation.change`, 0 for all, least recent change first.

        Emptied ones are among them, so that whoever shows a list can take them off. Each comes once, however often it
        changed.
        """
        with self._store.read() as tx:
            return history.conversations(tx, change)

    def messages(
        self,
        peer: UserId,
        conversation: ConversationId = _DEFAULT_CONVERSATION,
        *,
        before: int | None = None,
        limit: int = 50,
    ) -> list[HistoryEntry]:
        """Return the newest messages of a conversation, oldest first; `before` a position, to page backwards."""
        within = 0, MAX_TIMESTAMP if before is None else max(before, 0) - 1
        with self._store.read() as tx:
            newest = history_records.entries(tx, peer, conversation, within, limit=limit, newest_first=True)
        return newest[::-1]

    def search(
        self,
        peer: UserId,
        conversation: ConversationId = _DEFAULT_CONVERSATION,
        *,
        since: int | None = None,
        until: int | None = None,
        limit: int = 50,
    ) -> list[HistoryEntry]:
        """Return messages that came at or after `since` and before `until`, Unix milliseconds; the first ones, oldest
        first. Time passes as positions do: a late message counts where it stands.
        """
        within = history.between(since, until)
        with self._store.read() as tx:
            return history_records.entries(tx, peer, conversation, within, limit=limit)

    def message(self, author: UserId, message_id: MessageId) -> HistoryEntry | None:
        """Return one message, or None."""
        with self._store.read() as tx:
            return history_records.load_entry(tx, author, message_id)

    def unread(
        self, peer: UserId, conversation: ConversationId = _DEFAULT_CONVERSATION, *, through: int | None = None
    ) -> tuple[MessageId, ...]:
        """Return the messages of the peer that are unread, up to the position `through`, oldest first.

        `Messenger.mark_read` takes them.
        """
        with self._store.read() as tx:
            return history.unread(tx, peer, conversation, MAX_TIMESTAMP if through is None else through)

    def delete_message(self, author: UserId, message_id: MessageId) -> bool:
        """Delete a message here, and nowhere else; return whether there was one. It does not come again."""
        with self._store.write() as tx:
            return history.delete_message(tx, author, message_id)

    def delete_conversation(self, peer: UserId, conversation: ConversationId = _DEFAULT_CONVERSATION) -> int:
        """Delete the messages of a conversation here, and nowhere else; return how many.

        Later messages make it appear again. That there was a conversation of this name stays in the store.
        """
        with self._store.write() as tx:
            return history.delete_conversation(tx, peer, conversation)
