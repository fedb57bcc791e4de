"""Push subscriptions: at most one of each device.

Owns: SQL.
Does not know about: push services, when a device is woken.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.repository.statements import Insert, Upsert
from keyserver.tables import push_subscriptions as table

_VALUES = ("kind", "target", "public_key", "auth", "created_at", "woken_at")


class PushRow(NamedTuple):
    """A subscription; `public_key` and `auth` are empty but for Web Push."""

    kind: str
    target: str
    public_key: bytes
    auth: bytes

    def __repr__(self) -> str:
        return f"PushRow({self.kind!r}, redacted)"


def _build(insert: Insert) -> Insert:
    return insert.on_conflict_do_update(
        index_elements=[table.c.user_id, table.c.device_id],
        set_={name: getattr(insert.excluded, name) for name in _VALUES},
    )


_UPSERT = Upsert(table, _build)


def subscribe(connection: Connection, address: DeviceAddress, row: PushRow, now: int) -> None:
    """Keep a device's subscription, in place of the one before."""
    values = {"user_id": address.user_id, "device_id": address.device_id.raw, "created_at": now, "woken_at": 0}
    connection.execute(_UPSERT.on(connection), {**values, **row._asdict()})


def unsubscribe(connection: Connection, user_id: UserId, device_ids: Sequence[DeviceId]) -> None:
    """Forget the subscriptions of devices."""
    of_devices = table.c.device_id.in_([each.raw for each in device_ids])
    connection.execute(delete(table).where(table.c.user_id == user_id, of_devices))


def claim(connection: Connection, address: DeviceAddress, now: int, pause_ms: int) -> PushRow | int | None:
    """Return a device's subscription and note that it is woken now; None if it has none.

    If it was woken within the pause: how many milliseconds are left of it.
    """
    of_device = table.c.user_id == address.user_id, table.c.device_id == address.device_id.raw
    columns = table.c.kind, table.c.target, table.c.public_key, table.c.auth
    claimed = (
        update(table).where(*of_device, table.c.woken_at <= now - pause_ms).values(woken_at=now).returning(*columns)
    )
    row = connection.execute(claimed).one_or_none()
    if row is not None:
        return PushRow(*row)
    woken_at: int | None = connection.scalar(select(table.c.woken_at).where(*of_device))
    # Within the pause even if the clock was set back.
    return None if woken_at is None else min(pause_ms, max(1, woken_at + pause_ms - now))


def remove(connection: Connection, address: DeviceAddress, target: str) -> None:
    """Forget a subscription that is dead, unless the device has another one by now."""
    of_device = table.c.user_id == address.user_id, table.c.device_id == address.device_id.raw
    connection.execute(delete(table).where(*of_device, table.c.target == target))
