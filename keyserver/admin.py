"""`keyserver admin`: what an operator does with users and devices, on the server's database.

Owns: what each command does and the form of its result.
Does not know about: arguments (admin_command.py). It runs beside the server, which is told over the bus if there is
one, and finds out by what the database says in any case.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from e2ee.wire.identifiers import DeviceAddress, UserId
from keyserver.app import remove_inboxes, survey, system_clock
from keyserver.carriers import cut_everywhere
from keyserver.commands import load_settings
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.migrations.runner import check_current
from keyserver.repository import surveys
from keyserver.service import revocation

T = TypeVar("T")

_log = logging.getLogger("keyserver")

Result = Mapping[str, Any]
"""What a command found or did, as JSON shows it. Times are Unix milliseconds."""

MAX_USERS: Final = 1_000
"""In one answer; ask again from the last one on."""

CUT_SECONDS: Final = 10
"""By then every node has looked at the tokens of its connections again."""

_TELLING_SECONDS: Final = 5.0
"""How long the bus may take."""

TOLD_SECONDS: Final = 1
"""By then every node has done what it was told over the bus."""


class NotFoundError(Exception):
    """There is no such user or device. The text says which kind."""


class AdminError(Exception):
    """The database cannot be used; the text says why."""


def stats(database: str) -> Result:
    """Count users, devices, and what waits for them.

    Raises:
        AdminError: the database cannot be used.
    """
    return _run(database, survey)


def users(database: str, after: str, limit: int) -> Result:
    """List users in the order of their ids.

    Raises:
        AdminError: the database cannot be used.
    """
    found = _run(database, lambda connection: surveys.users_from(connection, after, limit))
    return {"users": [each._asdict() for each in found]}


def devices(database: str, user_id: UserId) -> Result:
    """List a user's devices, also those that left.

    Raises:
        NotFoundError: there is no such user.
        AdminError: the database cannot be used.
    """
    found = _run(database, lambda connection: surveys.devices_of(connection, user_id))
    if found is None:
        raise NotFoundError("there is no such user")
    rows = [each._asdict() | {"device_id": str(each.device_id), "status": each.status.name.lower()} for each in found]
    return {"user_id": user_id, "devices": rows}


def revoke_user(database: str, user_id: UserId) -> Result:
    """End all logins of a user; host tokens that were issued until now open nothing. Also of one who is not known yet.

    Raises:
        AdminError: the database cannot be used.
    """
    now = system_clock()

    def revoke(connection: Connection) -> bool:
        known = surveys.devices_of(connection, user_id) is not None
        revocation.revoke_user(connection, user_id, now)
        return known

    known = _run(database, revoke)
    cut = _cut(database, user_id)
    # `known`, because a mistyped name would be revoked without a word.
    return {"user_id": user_id, "known": known, "revoked_at": now, "cut_within_seconds": cut}


def revoke_device(database: str, address: DeviceAddress) -> Result:
    """Retire a device for good.

    Raises:
        NotFoundError: there is no such device, or it has left before.
        AdminError: the database cannot be used.
    """
    now = system_clock()
    if not _run(database, lambda connection: revocation.revoke_device(connection, address, now, remove_inboxes)):
        raise NotFoundError("there is no such device, or it has left before")
    cut = _cut(database, address)
    device = str(address.device_id)
    return {"user_id": address.user_id, "device_id": device, "retired_at": now, "cut_within_seconds": cut}


def _cut(database: str, target: DeviceAddress | UserId) -> int:
    """Have the running nodes end connections, and return by when that is done.

    They are told over the bus if the settings that they run with are here, too, and name one. Else, or if it cannot be
    reached, they find out by themselves.
    """
    try:
        settings = load_settings(database=database)
    except (ValueError, OSError):  # an unreadable file of a secret, too
        return CUT_SECONDS
    try:
        told = asyncio.run(asyncio.wait_for(cut_everywhere(settings, target), _TELLING_SECONDS))
    except Exception as error:  # noqa: BLE001 - of any driver; what was asked for is done all the same
        _log.warning("the nodes could not be told: %s", type(error).__name__)
        return CUT_SECONDS
    return TOLD_SECONDS if told else CUT_SECONDS


def _run(database: str, work: Callable[[Connection], T]) -> T:
    with _transaction(database) as connection:
        return work(connection)


@contextmanager
def _transaction(database: str) -> Iterator[Connection]:
    url = database_url(database)
    if is_sqlite(url) and not _exists(url.database):
        raise AdminError(f"there is no such database file: {url.database}")  # else it would be made, and be empty
    engine = sqlite_engine(url) if is_sqlite(url) else create_engine(url, hide_parameters=True)
    try:
        with engine.begin() as connection:
            try:
                check_current(connection)
            except ValueError as error:
                raise AdminError(str(error)) from None
            yield connection
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        raise AdminError(f"the database cannot be used: {reason}") from None
    finally:
        engine.dispose()


def _exists(path: str | None) -> bool:
    return path is not None and Path(path).is_file()
