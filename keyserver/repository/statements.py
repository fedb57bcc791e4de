"""Statements that are built once: building one costs more than running it.

Owns: INSERT ... ON CONFLICT for SQLite and PostgreSQL, which spell it the same but not in one class.
Does not know about: any table.

Names of parameters that are not columns to be set begin with `its_`, `for_` or the like: SQLAlchemy takes a name
that is also a column's for a value to insert.
"""

from collections.abc import Callable
from typing import final

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert


@final
class Upsert:
    """An insert that minds conflicts, once for each dialect."""

    def __init__(self, table: Table, build: Callable[[Insert], Executable]) -> None:
        self._statements = {"sqlite": build(sqlite.insert(table)), "postgresql": build(postgresql.insert(table))}

    def on(self, connection: Connection) -> Executable:
        """Return the statement in the connection's dialect."""
        return self._statements[connection.dialect.name]
