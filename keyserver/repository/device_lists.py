"""SQL on device lists.

Owns: the statements on `e2ee_device_lists`.
Does not know about: signatures and the chain (service/device_lists.py).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, insert, select

from e2ee.wire.device_list import DeviceListHash, SignedDeviceList
from e2ee.wire.identifiers import UserId
from keyserver.tables import device_lists


def add(connection: Connection, signed: SignedDeviceList, now: int) -> None:
    """Add an accepted list."""
    content = signed.unverified
    values = {
        "user_id": content.user_id,
        "seq": content.seq,
        "hash": content.hash().raw,
        "body": signed.encode(),
        "accepted_at": now,
    }
    connection.execute(insert(device_lists), values)


def hash_of(connection: Connection, user_id: UserId, seq: int) -> DeviceListHash | None:
    """Return the hash of the accepted list number `seq`."""
    found = connection.execute(
        select(device_lists.c.hash).where(device_lists.c.user_id == user_id, device_lists.c.seq == seq)
    ).scalar_one_or_none()
    return None if found is None else DeviceListHash(found)


def history(connection: Connection, user_id: UserId, from_seq: int, limit: int) -> Sequence[bytes]:
    """Return up to `limit` encoded lists from `from_seq` on, oldest first."""
    return (
        connection.execute(
            select(device_lists.c.body)
            .where(device_lists.c.user_id == user_id, device_lists.c.seq >= from_seq)
            .order_by(device_lists.c.seq)
            .limit(limit)
        )
        .scalars()
        .all()
    )


def newest(connection: Connection, user_id: UserId) -> bytes | None:
    """Return the newest encoded list."""
    return connection.execute(_NEWEST, {"its_user_id": user_id}).scalar_one_or_none()


_NEWEST = (
    select(device_lists.c.body)
    .where(device_lists.c.user_id == bindparam("its_user_id"))
    .order_by(device_lists.c.seq.desc())
    .limit(1)
)
