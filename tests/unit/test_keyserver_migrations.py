"""Migrations: they make exactly the tables that the code uses, and leave the host's own alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from keyserver.app import MAILBOX_TABLES
from keyserver.database import database_url, is_sqlite, sqlite_engine
from keyserver.migrations.runner import VERSION_TABLE, downgrade, is_current, upgrade
from keyserver.tables import metadata
from tests.databases import database_for, each_database  # noqa: F401 - a fixture


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_for(tmp_path / "migrated.db")


def engine_for(path: Path) -> Engine:
    url = database_url(database_for(path))
    return sqlite_engine(url) if is_sqlite(url) else create_engine(url)


def test_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade(connection)
    with engine.begin() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_migrated_tables_have_the_same_keys_and_partial_indexes(engine: Engine, tmp_path: Path) -> None:
    # What the comparison above does not look at: primary keys, foreign keys, WHERE of indexes.
    other = engine_for(tmp_path / "created.db")
    with engine.begin() as migrated, other.begin() as created:
        upgrade(migrated)
        metadata.create_all(created)
        for table in metadata.tables:
            found = [_described(connection, table) for connection in (migrated, created)]
            assert found[0] == found[1], table
    engine.dispose()
    other.dispose()


def test_all_names_are_prefixed_and_short_enough_for_postgresql() -> None:
    assert MAILBOX_TABLES.envelopes.name in metadata.tables
    for table in metadata.tables.values():
        names = [table.name, *(index.name for index in table.indexes), *(each.name for each in table.constraints)]
        assert all("e2ee_" in str(name) and len(str(name)) <= 63 for name in names), names


def test_migrating_twice_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        assert not is_current(connection)
        upgrade(connection)
        assert is_current(connection)
    with engine.begin() as connection:
        upgrade(connection)
        assert is_current(connection)
    engine.dispose()


@pytest.mark.parametrize(
    ("revision", "gone"),
    [
        ("0001", {"presence", "push_subscriptions", "link_messages", "leases", "recovery_blobs"}),
        ("0002", {"push_subscriptions", "link_messages", "leases", "recovery_blobs"}),
        ("0003", {"link_messages", "leases", "recovery_blobs"}),
        ("0004", {"leases", "recovery_blobs"}),
        ("0005", {"recovery_blobs"}),
        ("0006", {"recovery_blobs"}),
    ],
)
def test_later_tables_go_and_come_back_and_the_rest_stays(engine: Engine, revision: str, gone: set[str]) -> None:
    with engine.begin() as connection:
        upgrade(connection)
        before = set(inspect(connection).get_table_names())
    with engine.begin() as connection:
        downgrade(connection, revision)
        assert set(inspect(connection).get_table_names()) == before - {f"e2ee_{each}" for each in gone}
        assert not is_current(connection)
    with engine.begin() as connection:
        upgrade(connection)
        assert set(inspect(connection).get_table_names()) == before
        assert is_current(connection)
    engine.dispose()


def test_undoing_the_revocation_column_deletes_no_user_and_no_device(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade(connection)
        connection.execute(text("INSERT INTO e2ee_users VALUES ('bob', NULL, 0, :hash, 1, 5)"), {"hash": bytes(32)})
        values = {"device": bytes(16), "key": bytes(32)}
        statement = "INSERT INTO e2ee_devices VALUES ('bob', :device, :key, :key, 0, 0, -1, 1, NULL)"
        connection.execute(text(statement), values)
    with engine.begin() as connection:
        downgrade(connection, "0005")
    with engine.begin() as connection:
        upgrade(connection)
        assert connection.execute(text("SELECT count(*) FROM e2ee_devices")).scalar_one() == 1
        assert connection.execute(text("SELECT revoked_at FROM e2ee_users")).all() == [(None,)]
    engine.dispose()


def test_a_host_with_migrations_of_its_own_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('of the host')"))
        connection.execute(text("CREATE TABLE users (id INTEGER)"))
        upgrade(connection)
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "of the host"
        ours = [name for name in inspect(connection).get_table_names() if name not in ("alembic_version", "users")]
        assert all(name.startswith("e2ee_") for name in ours)
    engine.dispose()


def _described(connection: Connection, table: str) -> object:
    inspector = inspect(connection)
    return (
        inspector.get_pk_constraint(table),
        sorted(map(str, inspector.get_foreign_keys(table))),
        sorted(map(str, inspector.get_unique_constraints(table))),
        sorted((str(index["name"]), index["column_names"], _where(index)) for index in inspector.get_indexes(table)),
        sorted((column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)),
    )


def _where(index: Mapping[str, Any]) -> str:
    """Return the condition of a partial index; each database has its own name for it."""
    options = index.get("dialect_options", {})
    return str(options.get("sqlite_where", options.get("postgresql_where")))
