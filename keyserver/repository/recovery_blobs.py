"""SQL on recovery blobs.

Owns: the statements on `e2ee_recovery_blobs`.
Does not know about: who may store or read one.
"""

from sqlalchemy import Connection, bindparam, delete, select

from e2ee.wire.identifiers import UserId
from keyserver.repository.statements import Insert, Upsert
from keyserver.tables import recovery_blobs


def store(connection: Connection, user_id: UserId, body: bytes, now: int) -> None:
    """Store a user's blob in the place of the one before."""
    connection.execute(_STORE.on(connection), {"user_id": user_id, "body": body, "stored_at": now})


def find(connection: Connection, user_id: UserId) -> bytes | None:
    """Return a user's blob, if there is one."""
    return connection.execute(_FIND, {"its_user_id": user_id}).scalar_one_or_none()


def forget(connection: Connection, user_id: UserId) -> None:
    """Delete a user's blob."""
    connection.execute(delete(recovery_blobs).where(recovery_blobs.c.user_id == user_id))


def _store(insert: Insert) -> Insert:
    new = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=[recovery_blobs.c.user_id], set_={"body": new.body, "stored_at": new.stored_at}
    )


_STORE = Upsert(recovery_blobs, _store)
_FIND = select(recovery_blobs.c.body).where(recovery_blobs.c.user_id == bindparam("its_user_id"))
