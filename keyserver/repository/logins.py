"""SQL on logins.

Owns: the statements on `e2ee_logins`; how a device and its login stand, which every token is judged by.
Does not know about: tokens, assertions, lifetimes.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, select, text

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.login_assertion import LoginId
from keyserver.tables import DeviceStatus, devices, logins


class NewLogin(NamedTuple):
    """A login as it is made. Times are Unix milliseconds."""

    login_id: LoginId
    address: DeviceAddress
    host_issued_at: int
    expires_at: int


def add(connection: Connection, login: NewLogin, now: int) -> None:
    """Add a login."""
    values = {
        "login_id": login.login_id.raw,
        "user_id": login.address.user_id,
        "device_id": login.address.device_id.raw,
        "host_issued_at": login.host_issued_at,
        "created_at": now,
        "expires_at": login.expires_at,
    }
    connection.execute(insert(logins), values)


class Bearer(NamedTuple):
    """A device, and the login that it refers to."""

    address: DeviceAddress
    login_id: LoginId


class Presumed(NamedTuple):
    """What a token of this version says of its login, until a statement looks whether both still stand."""

    login_id: LoginId
    token_version: int


class Standing(NamedTuple):
    """A registered device, and when the login expires; None if it has ended, never was, or is another device's."""

    status: DeviceStatus
    token_version: int
    login_expires_at: int | None


def standings(connection: Connection, bearers: Sequence[Bearer]) -> list[Standing | None]:
    """Return how each device stands with its login; None for a device that is not registered.

    One statement on PostgreSQL, however many there are.
    """
    if connection.dialect.name != "postgresql":
        return [_standing(connection.execute(_STANDING, _named(each)).one_or_none()) for each in bearers]
    columns = {
        "users": [each.address.user_id for each in bearers],
        "devices": [each.address.device_id.raw for each in bearers],
        "logins": [each.login_id.raw for each in bearers],
    }
    found: list[Standing | None] = [None] * len(bearers)
    for place, *row in connection.execute(_STANDINGS, columns):
        found[place - 1] = _standing(row)
    return found


def expiry(connection: Connection, login_id: LoginId, address: DeviceAddress) -> int | None:
    """Return when the device's login expires; None if it has ended or never was."""
    return connection.execute(_EXPIRY, _named(Bearer(address, login_id))).scalar_one_or_none()


def keep_newest(connection: Connection, address: DeviceAddress, number: int) -> None:
    """End all but the device's newest logins."""
    kept = (
        select(logins.c.login_id)
        .where(*_of(address))
        .order_by(logins.c.created_at.desc(), logins.c.login_id)
        .limit(number)
    )
    connection.execute(delete(logins).where(*_of(address), logins.c.login_id.not_in(kept)))


def end(connection: Connection, user_id: UserId, device_ids: Collection[DeviceId]) -> None:
    """End every login of these devices."""
    named = logins.c.device_id.in_([each.raw for each in device_ids])
    connection.execute(delete(logins).where(logins.c.user_id == user_id, named))


def end_one(connection: Connection, login_id: LoginId) -> None:
    """End a login, if it has not ended."""
    connection.execute(delete(logins).where(logins.c.login_id == login_id.raw))


def end_all(connection: Connection, user_id: UserId) -> None:
    """End every login of a user's devices."""
    connection.execute(delete(logins).where(logins.c.user_id == user_id))


def end_everybodys(connection: Connection) -> int:
    """End every login; return how many."""
    return connection.execute(delete(logins)).rowcount


def forget(connection: Connection, expired_before: int) -> int:
    """Delete logins that expired before a time; return how many."""
    return connection.execute(delete(logins).where(logins.c.expires_at < expired_before)).rowcount


def _named(bearer: Bearer) -> dict[str, object]:
    return {
        "its_login_id": bearer.login_id.raw,
        "its_user_id": bearer.address.user_id,
        "its_device_id": bearer.address.device_id.raw,
    }


def _standing(row: Any) -> Standing | None:
    return None if row is None else Standing(DeviceStatus(row[0]), row[1], row[2])


def _of(address: DeviceAddress) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return logins.c.user_id == address.user_id, logins.c.device_id == address.device_id.raw


_EXPIRY = select(logins.c.expires_at).where(
    logins.c.login_id == bindparam("its_login_id"),
    logins.c.user_id == bindparam("its_user_id"),
    logins.c.device_id == bindparam("its_device_id"),
)
_STANDING = (
    select(devices.c.status, devices.c.token_version, logins.c.expires_at)
    .select_from(devices)
    .outerjoin(
        logins,
        and_(
            logins.c.login_id == bindparam("its_login_id"),
            logins.c.user_id == devices.c.user_id,
            logins.c.device_id == devices.c.device_id,
        ),
    )
    .where(devices.c.user_id == bindparam("its_user_id"), devices.c.device_id == bindparam("its_device_id"))
)
_STANDINGS = text("""
SELECT asked.place, device.status, device.token_version, login.expires_at
FROM unnest(CAST(:users AS text[]), CAST(:devices AS bytea[]), CAST(:logins AS bytea[]))
        WITH ORDINALITY AS asked (user_id, device_id, login_id, place)
    JOIN e2ee_devices device ON device.user_id = asked.user_id AND device.device_id = asked.device_id
    LEFT JOIN e2ee_logins login ON login.login_id = asked.login_id
        AND login.user_id = device.user_id AND login.device_id = device.device_id
""")
