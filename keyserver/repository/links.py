"""SQL on the messages of links.

Owns: the statements on `e2ee_link_messages`.
Does not know about: the order of the messages, how long a link lasts.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from e2ee.wire.identifiers import UserId
from e2ee.wire.link import LinkId, LinkSlot
from keyserver.repository.statements import Upsert
from keyserver.tables import link_messages


class Place(NamedTuple):
    """Where one message of one link is kept."""

    user_id: UserId
    link_id: LinkId
    slot: LinkSlot

    def at(self, slot: LinkSlot) -> "Place":
        """Return another place of the same link."""
        return self._replace(slot=slot)


def add(connection: Connection, place: Place, body: bytes, expires_at: int) -> bool:
    """Write a message, unless the place is taken; return whether it was written."""
    values = {**_named(place), "body": body, "expires_at": expires_at}
    return connection.execute(_ADD.on(connection), values).one_or_none() is not None


def find(connection: Connection, place: Place) -> tuple[bytes, int] | None:
    """Return a message and when its link expires; None if the place is empty."""
    values = {f"its_{name}": value for name, value in _named(place).items()}
    row = connection.execute(_FIND, values).one_or_none()
    return None if row is None else (row.body, row.expires_at)


def forget_all(connection: Connection) -> int:
    """Delete every message; return how many."""
    return connection.execute(delete(link_messages)).rowcount


def forget(connection: Connection, expired_before: int) -> int:
    """Delete links that expired before a time; return how many messages that were."""
    return connection.execute(delete(link_messages).where(link_messages.c.expires_at < expired_before)).rowcount


def _named(place: Place) -> dict[str, Any]:
    return {"user_id": place.user_id, "link_id": place.link_id.raw, "slot": int(place.slot)}


_ADD = Upsert(link_messages, lambda insert: insert.on_conflict_do_nothing().returning(link_messages.c.slot))
_FIND = select(link_messages.c.body, link_messages.c.expires_at).where(
    link_messages.c.user_id == bindparam("its_user_id"),
    link_messages.c.link_id == bindparam("its_link_id"),
    link_messages.c.slot == bindparam("its_slot"),
)
