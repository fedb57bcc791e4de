"""SQL on users and devices.

Owns: the statements on `e2ee_users` and `e2ee_devices`.
Does not know about: who may do what (service/).
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, insert, or_, select, update

from e2ee.wire.device_list import NO_PREVIOUS_LIST, DeviceListHash, ListPosition
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey
from keyserver.repository.statements import Upsert
from keyserver.tables import DeviceStatus, devices, users


class UserRow(NamedTuple):
    """A user: the account key of the accepted lists, and the newest of them (seq 0 before the first)."""

    account_key: AccountKey | None
    list_seq: int
    list_hash: DeviceListHash


class DeviceRow(NamedTuple):
    """A registered device."""

    device_id: DeviceId
    device_signing_key: DeviceSigningKey
    identity_key: IdentityKey
    status: DeviceStatus
    token_version: int
    login_counter: int


class Standing(NamedTuple):
    """What a send is judged by: the user's newest list and the device's status (None: not registered)."""

    list_seq: int
    list_hash: bytes
    status: DeviceStatus | None


def ensure_user(connection: Connection, user_id: UserId, now: int) -> None:
    """Add the user's row unless it is there."""
    values = {"user_id": user_id, "list_seq": 0, "list_hash": NO_PREVIOUS_LIST.raw, "created_at": now}
    connection.execute(_ENSURE_USER.on(connection), values)


def find_user(connection: Connection, user_id: UserId, *, lock: bool = False) -> UserRow | None:
    """Return the user's row; with `lock`, until the end of the transaction nobody else changes it."""
    statement = select(users.c.account_key, users.c.list_seq, users.c.list_hash).where(users.c.user_id == user_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        return None
    account_key = None if row.account_key is None else AccountKey(row.account_key)
    return UserRow(account_key, row.list_seq, DeviceListHash(row.list_hash))


def advance_list(
    connection: Connection, user_id: UserId, account_key: AccountKey, old: ListPosition, new: ListPosition
) -> bool:
    """Compare and set: move the user from `old` to `new`. False if the user was not at `old`."""
    moved = connection.execute(
        update(users)
        .where(users.c.user_id == user_id, users.c.list_seq == old.seq, users.c.list_hash == old.hash.raw)
        .values(account_key=account_key.raw, list_seq=new.seq, list_hash=new.hash.raw)
    )
    return moved.rowcount == 1


def revoke_user(connection: Connection, user_id: UserId, at: int) -> None:
    """Note that the user's access was revoked at a time; never moves it back."""
    later = or_(users.c.revoked_at.is_(None), users.c.revoked_at < at)
    connection.execute(update(users).where(users.c.user_id == user_id, later).values(revoked_at=at))


def revoked_at(connection: Connection, user_id: UserId) -> int | None:
    """Return when the user's access was last revoked; None if never."""
    return connection.execute(_REVOKED_AT, {"its_user_id": user_id}).scalar_one_or_none()


def add_device(
    connection: Connection, address: DeviceAddress, keys: tuple[DeviceSigningKey, IdentityKey], now: int
) -> None:
    """Add a pending device."""
    signing_key, identity_key = keys
    values = {
        "user_id": address.user_id,
        "device_id": address.device_id.raw,
        "device_signing_key": signing_key.raw,
        "identity_key": identity_key.raw,
        "status": DeviceStatus.PENDING,
        "token_version": 0,
        "login_counter": -1,
        "created_at": now,
    }
    connection.execute(insert(devices), values)


def find_device(connection: Connection, address: DeviceAddress, *, lock: bool = False) -> DeviceRow | None:
    """Return a device; with `lock`, until the end of the transaction nobody else changes it."""
    row = connection.execute(_FIND_AND_LOCK if lock else _FIND, _named(address)).one_or_none()
    return None if row is None else _device(row)


def devices_of(connection: Connection, user_id: UserId, device_ids: Collection[DeviceId]) -> Sequence[DeviceRow]:
    """Return those of the named devices that are registered."""
    named = devices.c.device_id.in_([each.raw for each in device_ids])
    rows = connection.execute(_DEVICES.where(devices.c.user_id == user_id, named)).all()
    return [_device(row) for row in rows]


def active(connection: Connection, user_id: UserId) -> Sequence[DeviceId]:
    """Return the user's active devices."""
    return [device_id for device_id, _ in _in_status(connection, user_id, DeviceStatus.ACTIVE)]


def pending(connection: Connection, user_id: UserId) -> Sequence[tuple[DeviceId, int]]:
    """Return the user's devices that wait to be listed, and when each was registered, oldest first."""
    return _in_status(connection, user_id, DeviceStatus.PENDING)


def present(connection: Connection, user_id: UserId) -> Sequence[tuple[DeviceId, DeviceStatus, int]]:
    """Return the user's devices that have not left, and when each was registered, oldest first."""
    rows = connection.execute(_PRESENT, {"its_user_id": user_id, "its_status": DeviceStatus.RETIRED})
    return [(DeviceId(row.device_id), DeviceStatus(row.status), row.created_at) for row in rows]


def activate(connection: Connection, user_id: UserId, device_ids: Collection[DeviceId]) -> None:
    """Make pending devices active."""
    named = devices.c.device_id.in_([each.raw for each in device_ids])
    pending = devices.c.status == DeviceStatus.PENDING
    connection.execute(
        update(devices).where(devices.c.user_id == user_id, named, pending).values(status=DeviceStatus.ACTIVE)
    )


def retire(connection: Connection, user_id: UserId, device_ids: Collection[DeviceId], now: int) -> None:
    """Retire devices and end their tokens."""
    named = devices.c.device_id.in_([each.raw for each in device_ids])
    connection.execute(
        update(devices)
        .where(devices.c.user_id == user_id, named)
        .values(status=DeviceStatus.RETIRED, token_version=devices.c.token_version + 1, retired_at=now)
    )


def advance_login_counter(connection: Connection, address: DeviceAddress, counter: int) -> bool:
    """Compare and set: use up `counter`. False if this or a higher one was used before."""
    moved = connection.execute(
        update(devices).where(*_is(address), devices.c.login_counter < counter).values(login_counter=counter)
    )
    return moved.rowcount == 1


def standing(connection: Connection, address: DeviceAddress) -> Standing | None:
    """Return how a device stands; None if even its user is unknown."""
    row = connection.execute(_STANDING, _named(address)).one_or_none()
    if row is None:
        return None
    return Standing(row.list_seq, row.list_hash, None if row.status is None else DeviceStatus(row.status))


def _is(address: DeviceAddress) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return devices.c.user_id == address.user_id, devices.c.device_id == address.device_id.raw


def _in_status(connection: Connection, user_id: UserId, status: DeviceStatus) -> Sequence[tuple[DeviceId, int]]:
    rows = connection.execute(_IN_STATUS, {"its_user_id": user_id, "its_status": status})
    return [(DeviceId(row.device_id), row.created_at) for row in rows]


def _named(address: DeviceAddress) -> dict[str, Any]:
    return {"its_user_id": address.user_id, "its_device_id": address.device_id.raw}


def _device(row: Any) -> DeviceRow:
    return DeviceRow(
        DeviceId(row.device_id),
        DeviceSigningKey(row.device_signing_key),
        IdentityKey(row.identity_key),
        DeviceStatus(row.status),
        row.token_version,
        row.login_counter,
    )


_REVOKED_AT = select(users.c.revoked_at).where(users.c.user_id == bindparam("its_user_id"))
_ENSURE_USER = Upsert(users, lambda insert: insert.on_conflict_do_nothing())
_DEVICES = select(
    devices.c.device_id,
    devices.c.device_signing_key,
    devices.c.identity_key,
    devices.c.status,
    devices.c.token_version,
    devices.c.login_counter,
)
_FIND = _DEVICES.where(devices.c.user_id == bindparam("its_user_id"), devices.c.device_id == bindparam("its_device_id"))
_FIND_AND_LOCK = _FIND.with_for_update()
_IN_STATUS = (
    select(devices.c.device_id, devices.c.created_at)
    .where(devices.c.user_id == bindparam("its_user_id"), devices.c.status == bindparam("its_status"))
    .order_by(devices.c.created_at, devices.c.device_id)
)
_PRESENT = (
    select(devices.c.device_id, devices.c.status, devices.c.created_at)
    .where(devices.c.user_id == bindparam("its_user_id"), devices.c.status != bindparam("its_status"))
    .order_by(devices.c.created_at, devices.c.device_id)
)
_STANDING = (
    select(users.c.list_seq, users.c.list_hash, devices.c.status)
    .select_from(users)
    .outerjoin(devices, and_(devices.c.user_id == users.c.user_id, devices.c.device_id == bindparam("its_device_id")))
    .where(users.c.user_id == bindparam("its_user_id"))
)
