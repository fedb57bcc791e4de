"""SQL for whoever watches or runs the server: numbers, and what is known of one user.

Owns: these statements. They only read.
Does not know about: the mailbox, who asks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from e2ee.wire.identifiers import DeviceId, UserId
from keyserver.tables import DeviceStatus, PreKeyKind, devices, logins, prekeys, users


class Survey(NamedTuple):
    """Numbers of users and devices, and how many devices have run out of one-time prekeys."""

    users: int
    pending_devices: int
    active_devices: int
    retired_devices: int
    logins: int
    without_one_time_prekeys: int
    """Active devices whose new sessions lack a one-time X25519 prekey."""
    without_one_time_kem_prekeys: int
    """Active devices whose new sessions use the last-resort KEM prekey."""


class UserSummary(NamedTuple):
    """A user. Times are Unix milliseconds; `list_seq` is 0 before the first device list."""

    user_id: UserId
    list_seq: int
    active_devices: int
    created_at: int
    revoked_at: int | None


class DeviceSummary(NamedTuple):
    """A device, and what it offers."""

    device_id: DeviceId
    status: DeviceStatus
    created_at: int
    retired_at: int | None
    logins: int
    one_time_prekeys: int
    one_time_kem_prekeys: int


def survey(connection: Connection) -> Survey:
    """Count everything."""
    statuses = connection.execute(select(devices.c.status, func.count()).group_by(devices.c.status))
    by_status: dict[int, int] = {status: number for status, number in statuses}  # noqa: C416 - of rows, not pairs
    return Survey(
        users=connection.execute(select(func.count()).select_from(users)).scalar_one(),
        pending_devices=by_status.get(DeviceStatus.PENDING, 0),
        active_devices=by_status.get(DeviceStatus.ACTIVE, 0),
        retired_devices=by_status.get(DeviceStatus.RETIRED, 0),
        logins=connection.execute(select(func.count()).select_from(logins)).scalar_one(),
        without_one_time_prekeys=_without(connection, PreKeyKind.ONE_TIME),
        without_one_time_kem_prekeys=_without(connection, PreKeyKind.ONE_TIME_KEM),
    )


def users_from(connection: Connection, after: str, limit: int) -> Sequence[UserSummary]:
    """Return users in the order of their ids, those after a name first."""
    active = (
        select(func.count())
        .where(devices.c.user_id == users.c.user_id, devices.c.status == DeviceStatus.ACTIVE)
        .scalar_subquery()
    )
    statement = (
        select(users.c.user_id, users.c.list_seq, active, users.c.created_at, users.c.revoked_at)
        .where(users.c.user_id > after)
        .order_by(users.c.user_id)
        .limit(limit)
    )
    return [UserSummary(UserId(row[0]), *row[1:]) for row in connection.execute(statement)]


def devices_of(connection: Connection, user_id: UserId) -> Sequence[DeviceSummary] | None:
    """Return a user's devices, oldest first; None if there is no such user."""
    if connection.execute(select(users.c.user_id).where(users.c.user_id == user_id)).one_or_none() is None:
        return None
    same_device = and_(logins.c.user_id == devices.c.user_id, logins.c.device_id == devices.c.device_id)
    statement = (
        select(
            devices.c.device_id,
            devices.c.status,
            devices.c.created_at,
            devices.c.retired_at,
            select(func.count()).where(same_device).scalar_subquery(),
            select(func.count()).where(_offered(PreKeyKind.ONE_TIME)).scalar_subquery(),
            select(func.count()).where(_offered(PreKeyKind.ONE_TIME_KEM)).scalar_subquery(),
        )
        .where(devices.c.user_id == user_id)
        .order_by(devices.c.created_at, devices.c.device_id)
    )
    rows = connection.execute(statement)
    return [DeviceSummary(DeviceId(row[0]), DeviceStatus(row[1]), *row[2:]) for row in rows]


def _without(connection: Connection, kind: PreKeyKind) -> int:
    statement = select(func.count()).where(devices.c.status == DeviceStatus.ACTIVE, ~exists().where(_offered(kind)))
    return connection.execute(statement).scalar_one()


def _offered(kind: PreKeyKind) -> ColumnElement[bool]:
    return and_(
        prekeys.c.user_id == devices.c.user_id,
        prekeys.c.device_id == devices.c.device_id,
        prekeys.c.kind == kind,
        prekeys.c.spent_at.is_(None),
    )
