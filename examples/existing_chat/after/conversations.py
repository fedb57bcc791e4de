"""Conversations and their messages.

Owns: who is a member, what is stored, what a list of conversations shows.
Does not know about: HTTP, Socket.IO, logins.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update

from .push import PRIVATE_PREVIEW, preview
from .tables import conversations, members, messages, users

HISTORY_PAGE = 100


class NotAMemberError(Exception):
    """There is no such conversation, or it is not the asker's: nobody is told which."""


class PrivateConversationError(Exception):
    """Its messages are for the members alone: the chat takes no plaintext."""


class Conversations:
    """All conversations of the chat. Calls block on the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self, user_ids: Sequence[int]) -> str:
        """Make a conversation between these users; return its id."""
        conversation_id = secrets.token_hex(16)
        with self._engine.begin() as connection:
            connection.execute(insert(conversations).values(id=conversation_id, last_at=_now()))
            rows = [{"conversation_id": conversation_id, "user_id": user_id} for user_id in user_ids]
            connection.execute(insert(members), rows)
        return conversation_id

    def members(self, conversation_id: str, asker: int) -> list[int]:
        """Return who takes part, if the asker does."""
        with self._engine.connect() as connection:
            return _members(connection, conversation_id, asker)

    def listed(self, user_id: int) -> list[dict[str, Any]]:
        """Return a user's conversations as the list shows them, the newest first."""
        mine = (
            select(conversations, members.c.read_through)
            .join(members, members.c.conversation_id == conversations.c.id)
            .where(members.c.user_id == user_id)
            .order_by(conversations.c.last_at.desc())
        )
        with self._engine.connect() as connection:
            return [_entry(connection, row, user_id) for row in connection.execute(mine).mappings().all()]

    def history(self, conversation_id: str, asker: int, after: int) -> list[dict[str, Any]]:
        """Return the messages after a number, oldest first, a page at a time."""
        with self._engine.connect() as connection:
            _members(connection, conversation_id, asker)
            page = (
                select(messages)
                .where(messages.c.conversation_id == conversation_id, messages.c.id > after)
                .order_by(messages.c.id)
                .limit(HISTORY_PAGE)
            )
            return [_message(row) for row in connection.execute(page).mappings()]

    def add(self, conversation_id: str, sender: int, text: str) -> dict[str, Any]:
        """Store a message of a member; return it as clients see it."""
        now = _now()
        touch = update(conversations).where(conversations.c.id == conversation_id).values(last_at=now)
        touch = touch.where(conversations.c.private_since.is_(None))
        values = {"conversation_id": conversation_id, "sender_id": sender, "text": text, "sent_at": now}
        with self._engine.begin() as connection:
            touched = connection.execute(touch).rowcount
            _members(connection, conversation_id, sender)
            if not touched:  # judged by the statement that takes the write lock: no message slips in beside a switch
                raise PrivateConversationError
            return _message(connection.execute(insert(messages).values(values).returning(messages)).mappings().one())

    def read(self, conversation_id: str, user_id: int, message_id: int) -> None:
        """Note how far a member has read."""
        newest = func.max(members.c.read_through, message_id)
        its = members.c.conversation_id == conversation_id, members.c.user_id == user_id
        with self._engine.begin() as connection:
            _members(connection, conversation_id, user_id)
            connection.execute(update(members).where(*its).values(read_through=newest))

    def make_private(self, conversation_id: str, asker: int) -> None:
        """Switch a member's conversation to private, for good. What was said before stays as it is."""
        now = _now()
        switch = update(conversations).where(conversations.c.id == conversation_id)
        with self._engine.begin() as connection:
            _members(connection, conversation_id, asker)
            unswitched = switch.where(conversations.c.private_since.is_(None))
            connection.execute(unswitched.values(private_since=now, last_at=now))

    def is_private(self, conversation_id: str, asker: int) -> bool:
        """Say whether a member's conversation is private."""
        since = select(conversations.c.private_since).where(conversations.c.id == conversation_id)
        with self._engine.connect() as connection:
            _members(connection, conversation_id, asker)
            return connection.execute(since).scalar_one() is not None

    def shared(self, one: int, other: int) -> bool:
        """Say whether two users are members of one conversation."""
        others = members.alias()
        both = (
            select(members.c.user_id)
            .join(others, others.c.conversation_id == members.c.conversation_id)
            .where(members.c.user_id == one, others.c.user_id == other)
            .limit(1)
        )
        with self._engine.connect() as connection:
            return connection.execute(both).first() is not None


def _members(connection: Connection, conversation_id: str, asker: int) -> list[int]:
    found = connection.execute(select(members.c.user_id).where(members.c.conversation_id == conversation_id))
    user_ids = list(found.scalars())
    if asker not in user_ids:
        raise NotAMemberError
    return user_ids


def _entry(connection: Connection, row: RowMapping, user_id: int) -> dict[str, Any]:
    people = (
        select(users.c.id, users.c.name, (users.c.connections > 0).label("online"))
        .join(members, members.c.user_id == users.c.id)
        .where(members.c.conversation_id == row["id"])
        .order_by(users.c.id)
    )
    its = messages.c.conversation_id == row["id"]
    last = connection.execute(select(messages.c.text).where(its).order_by(messages.c.id.desc()).limit(1)).scalar()
    unread = select(func.count()).where(its, messages.c.id > row["read_through"], messages.c.sender_id != user_id)
    return {
        "id": row["id"],
        "members": [dict(person) for person in connection.execute(people).mappings()],
        "last_at": row["last_at"],
        "preview": preview(last or ""),
        "unread": connection.execute(unread).scalar_one(),
        "private": False,
        # What is in a private one, and how much of it is unread, only the members' devices know.
        **({"preview": PRIVATE_PREVIEW, "unread": None, "private": True} if row["private_since"] else {}),
    }


def _message(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "conversation": row["conversation_id"],
        "sender": row["sender_id"],
        "text": row["text"],
        "sent_at": row["sent_at"],
    }


def _now() -> int:
    return time.time_ns() // 1_000_000
