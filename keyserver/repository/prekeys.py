"""SQL on prekeys.

Owns: the statements on `e2ee_prekeys`; above all that no statement hands out a one-time prekey twice.
Does not know about: signatures, bundles, who may claim.

A row that was spent keeps its id and hash for as long as the device exists: a tombstone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, insert, select, update

from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from keyserver.tables import DeviceStatus, PreKeyKind, devices, prekeys


class NewPreKey(NamedTuple):
    """A prekey as it is published. `body` is the encoded wire object, `hash` its SHA-256."""

    prekey_id: PreKeyId
    kind: PreKeyKind
    body: bytes
    hash: bytes
    expires_at: int | None


class Fingerprint(NamedTuple):
    """What is known of a published id, even when its bytes are gone."""

    kind: PreKeyKind
    hash: bytes


def fingerprints(
    connection: Connection, address: DeviceAddress, prekey_ids: Collection[PreKeyId]
) -> Mapping[PreKeyId, Fingerprint]:
    """Return those of the named ids that were published before, spent or not."""
    rows = connection.execute(_FINGERPRINTS, {**_of(address), "its_ids": list(prekey_ids)})
    return {PreKeyId(row.prekey_id): Fingerprint(PreKeyKind(row.kind), row.hash) for row in rows}


def add(connection: Connection, address: DeviceAddress, fresh: Sequence[NewPreKey], now: int) -> None:
    """Publish prekeys whose ids are new."""
    rows = [
        {
            "user_id": address.user_id,
            "device_id": address.device_id.raw,
            "prekey_id": each.prekey_id,
            "kind": each.kind,
            "hash": each.hash,
            "body": each.body,
            "expires_at": each.expires_at,
            "published_at": now,
        }
        for each in fresh
    ]
    if rows:
        connection.execute(_ADD, rows)


def replace(connection: Connection, address: DeviceAddress, kind: PreKeyKind, now: int) -> None:
    """Stop offering the device's prekeys of a kind."""
    connection.execute(_REPLACE, {**_of(address), "its_kind": kind, "its_now": now})


def count_offered(connection: Connection, address: DeviceAddress, now: int) -> Mapping[PreKeyKind, int]:
    """Return how many prekeys of each kind are offered; a kind without any is missing."""
    rows = connection.execute(_COUNT, {**_of(address), "its_now": now})
    return {PreKeyKind(row.kind): row.number for row in rows}


def offered(connection: Connection, address: DeviceAddress, kind: PreKeyKind, now: int) -> PreKeyId | None:
    """Return the device's prekey of a kind that is offered until it is replaced."""
    values = {**_of(address), "its_kind": kind, "its_now": now}
    found = connection.execute(_CURRENT, values).scalar_one_or_none()
    return None if found is None else PreKeyId(found)


def claim_one_time_prekey(
    connection: Connection, address: DeviceAddress, kind: PreKeyKind, request_id: bytes, now: int
) -> PreKeyId | None:
    """Hand out the device's oldest one-time prekey of a kind, and mark it; None if none is left.

    One statement picks and marks, so two claims never see the same row as unmarked. On PostgreSQL the pick skips
    rows that another claim has locked: both get a key, neither waits.
    """
    values = {**_of(address), "its_kind": kind, "its_now": now, "its_request_id": request_id}
    claimed = connection.execute(_CLAIM, values).scalar_one_or_none()
    return None if claimed is None else PreKeyId(claimed)


def withdraw(connection: Connection, user_id: UserId, device_ids: Collection[DeviceId], now: int) -> None:
    """Stop offering anything of these devices."""
    named = prekeys.c.device_id.in_([each.raw for each in device_ids])
    connection.execute(update(prekeys).where(prekeys.c.user_id == user_id, named, _OFFERED).values(spent_at=now))


def end_one_time(connection: Connection, now: int) -> int:
    """Stop offering every one-time prekey of every device, and drop their bytes; return how many. Tombstones stay."""
    one_time = prekeys.c.kind.in_((PreKeyKind.ONE_TIME, PreKeyKind.ONE_TIME_KEM))
    return connection.execute(update(prekeys).where(one_time, _OFFERED).values(spent_at=now, body=None)).rowcount


def forget_bodies(connection: Connection, spent_before: int) -> int:
    """Drop the bytes of prekeys spent before a time; return how many. Id and hash stay."""
    old = prekeys.c.spent_at < spent_before
    return connection.execute(update(prekeys).where(old, prekeys.c.body.is_not(None)).values(body=None)).rowcount


def delete_retired(connection: Connection, retired_before: int) -> int:
    """Delete all prekeys of devices that were retired before a time; return how many.

    No tombstones are needed here: a retired device publishes nothing any more.
    """
    gone = (
        select(devices.c.device_id)
        .where(
            devices.c.user_id == prekeys.c.user_id,
            devices.c.device_id == prekeys.c.device_id,
            devices.c.status == DeviceStatus.RETIRED,
            devices.c.retired_at < retired_before,
        )
        .exists()
    )
    return connection.execute(delete(prekeys).where(gone)).rowcount


def _of(address: DeviceAddress) -> dict[str, Any]:
    return {"its_user_id": address.user_id, "its_device_id": address.device_id.raw}


_NOW = bindparam("its_now", type_=BigInteger)
_MINE = (prekeys.c.user_id == bindparam("its_user_id")) & (prekeys.c.device_id == bindparam("its_device_id"))
_OF_KIND = _MINE & (prekeys.c.kind == bindparam("its_kind"))
_OFFERED = prekeys.c.spent_at.is_(None)
_UNEXPIRED = prekeys.c.expires_at.is_(None) | (prekeys.c.expires_at > _NOW)

_FINGERPRINTS = select(prekeys.c.prekey_id, prekeys.c.kind, prekeys.c.hash).where(
    _MINE, prekeys.c.prekey_id.in_(bindparam("its_ids", expanding=True))
)
_ADD = insert(prekeys)
_REPLACE = update(prekeys).where(_OF_KIND, _OFFERED).values(spent_at=_NOW)
_COUNT = (
    select(prekeys.c.kind, func.count().label("number")).where(_MINE, _OFFERED, _UNEXPIRED).group_by(prekeys.c.kind)
)
_CURRENT = select(prekeys.c.prekey_id).where(_OF_KIND, _OFFERED, _UNEXPIRED)
_OLDEST = (
    select(prekeys.c.prekey_id)
    .where(_OF_KIND, _OFFERED, _UNEXPIRED)
    .order_by(prekeys.c.published_at, prekeys.c.prekey_id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .cte("picked")
    .prefix_with("MATERIALIZED")  # or PostgreSQL may run the pick again for every row it compares
)
_CLAIM = (
    update(prekeys)
    .where(_MINE, prekeys.c.prekey_id == select(_OLDEST.c.prekey_id).scalar_subquery(), _OFFERED)
    .values(spent_at=_NOW, claim_request=bindparam("its_request_id"))
    .returning(prekeys.c.prekey_id)
)
