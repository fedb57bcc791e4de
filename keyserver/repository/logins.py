"""SQL on logins.

Owns: the statements on `e2ee_logins`.
Does not know about: tokens, assertions, lifetimes.
"""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.login_assertion import LoginId
from keyserver.tables import logins


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


def expiry(connection: Connection, login_id: LoginId, address: DeviceAddress) -> int | None:
    """Return when the device's login expires; None if it has ended or never was."""
    values = {
        "its_login_id": login_id.raw,
        "its_user_id": address.user_id,
        "its_device_id": address.device_id.raw,
    }
    return connection.execute(_EXPIRY, values).scalar_one_or_none()


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


def _of(address: DeviceAddress) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return logins.c.user_id == address.user_id, logins.c.device_id == address.device_id.raw


_EXPIRY = select(logins.c.expires_at).where(
    logins.c.login_id == bindparam("its_login_id"),
    logins.c.user_id == bindparam("its_user_id"),
    logins.c.device_id == bindparam("its_device_id"),
)
