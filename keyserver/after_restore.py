"""What must be done to a database that came from a backup, before it is served again.

Owns: what that is.
Does not know about: arguments (admin_command.py); how a backup is made and put back (docs/operations.md).

The database has forgotten what happened since the backup. What hurts of that is answered:

| forgotten | answer |
|---|---|
| one-time prekeys that were claimed | all that it still offers are withdrawn; their owners publish new ones |
| logins that ended | all end: who wants one shows the host application's token again |
| devices that left | the first device of the user that comes back, or a contact, brings the newer list |
| how far mailboxes had come | each gets a new epoch, by which clients notice, and give back what was forgotten |
"""

from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keyserver.app import restart_mailboxes, system_clock
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.migrations.runner import upgrade
from keyserver.postgresql import postgresql_engine, take_your_time
from keyserver.repository import links, logins, prekeys
from keyserver.sole_process import SecondProcessError, database_lock


class Restored(NamedTuple):
    """What was done: how many of each."""

    mailboxes: int
    one_time_prekeys: int
    logins: int


def after_restore(connection: Connection, now: int) -> Restored:
    """Do it, in the transaction of `connection`. To do it twice does no harm."""
    take_your_time(connection)
    links.forget_all(connection)
    return Restored(
        mailboxes=restart_mailboxes(connection, now),
        one_time_prekeys=prekeys.end_one_time(connection, now),
        logins=logins.end_everybodys(connection),
    )


def restore_database(database: str) -> Restored:
    """Bring the tables up to date, and do it.

    Raises:
        ValueError: the database cannot be used, or a process serves it.
    """
    url = database_url(database)
    engine = sqlite_engine(url) if is_sqlite(url) else postgresql_engine(url, threads=1)
    try:
        # A server that runs meanwhile would go on to believe what it has read.
        with database_lock(url), engine.begin() as connection:
            upgrade(connection)
            return after_restore(connection, system_clock())
    except SecondProcessError:
        raise ValueError("a process serves this database: stop it first") from None
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else type(error).__name__
        raise ValueError(f"the database cannot be used: {reason}") from None
    finally:
        engine.dispose()
