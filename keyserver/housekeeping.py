"""What time undoes: bytes of claimed prekeys, old claims, ended logins, full buckets.

Owns: the intervals, the loop.
Does not know about: the mailbox, which keeps its own house.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy import Connection

from e2ee.limits import DAY_MS
from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.postgresql import take_your_time
from keyserver.repository import claims, links, logins, prekeys, rate_limits

CLAIM_REPEATABLE_MS: Final = DAY_MS
"""How long a repeated claim gets the same keys, and so how long the bytes of spent prekeys stay."""

_INTERVAL_SECONDS: Final = 600

_log = logging.getLogger("keyserver")


def clean(connection: Connection, now: int) -> int:
    """Delete what has had its time; return the number of rows.

    Claims and bodies go in one transaction: a claim that is still recorded finds the bytes that it names.
    """
    take_your_time(connection)
    before = now - CLAIM_REPEATABLE_MS
    return (
        claims.forget(connection, before)
        + prekeys.forget_bodies(connection, before)
        + prekeys.delete_retired(connection, before)
        + logins.forget(connection, now)
        + links.forget(connection, now)
        + rate_limits.forget_full(connection, now)
    )


async def keep_house(database: Database, now: Clock) -> None:
    """Clean every ten minutes until cancelled."""
    while True:
        try:
            await database.write(lambda connection: clean(connection, now()), patience=None)
        except Exception as error:  # noqa: BLE001 - of any driver; retention must not end with one failure
            _log.error("housekeeping failed and is tried again later: %s", type(error).__name__)  # not its text: values
        await asyncio.sleep(_INTERVAL_SECONDS)
