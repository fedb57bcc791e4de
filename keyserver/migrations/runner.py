"""Brings the tables of key service and mailbox up to date.

Owns: Alembic's configuration. Its version table has a name of its own, so the tables can live in the host's database.
Does not know about: the tables.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from keyserver.postgresql import take_your_time

VERSION_TABLE: Final = "e2ee_alembic_version"
_LOCK: Final = int.from_bytes(b"e2ee_mig", "big")


NOT_CURRENT: Final = "the database's tables are not those of this release: run 'keyserver migrate'"
NEWER: Final = "the database's tables are those of a newer release, and this one does not know them: run the newer one"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run what is missing up to `revision`, in the transaction of `connection`.

    Of several nodes that start at once, one does it, and the others wait.

    Raises:
        ValueError: a newer release has changed the tables since.
    """
    if connection.dialect.name == "postgresql":
        take_your_time(connection)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if _is_newer(connection):
        raise ValueError(NEWER)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Undo what came after `revision`, in the transaction of `connection`."""
    config = _config()
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def check_current(connection: Connection) -> None:
    """Look whether the tables are those of this release.

    Raises:
        ValueError: they are not; the text says what to do.
    """
    if _is_newer(connection):
        raise ValueError(NEWER)
    if not is_current(connection):
        raise ValueError(NOT_CURRENT)


def is_current(connection: Connection) -> bool:
    """Say whether the tables are those of this release."""
    return _found(connection) == set(ScriptDirectory.from_config(_config()).get_heads())


def _is_newer(connection: Connection) -> bool:
    """Say whether the tables are at a revision that this release does not know: only a later one can have made it."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return not _found(connection) <= known


def _found(connection: Connection) -> set[str]:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return set(context.get_current_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
