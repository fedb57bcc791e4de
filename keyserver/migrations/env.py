"""Alembic's entry point. Runs on the connection that `keyserver.migrations.runner` hands over, inside its transaction.

Owns: how the migrations are run. Does not know about: where the database is.
"""

from alembic import context

from keyserver.migrations.runner import VERSION_TABLE
from keyserver.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
