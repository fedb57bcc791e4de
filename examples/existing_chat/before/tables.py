"""The chat's tables.

Owns: columns and keys, opening the database.
Does not know about: what the rows mean.
"""

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
)

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(32), nullable=False, unique=True),
    Column("password_hash", String(128), nullable=False),
    # Part of every token: raising it ends them all.
    Column("token_version", Integer, nullable=False, default=0),
    Column("connections", Integer, nullable=False, default=0),
    sqlite_autoincrement=True,  # the number of a deleted user is nobody else's
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    # Unix milliseconds, as all times.
    Column("last_at", BigInteger, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("conversation_id", ForeignKey("conversations.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("read_through", Integer, nullable=False, default=0),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False, index=True),
    Column("sender_id", ForeignKey("users.id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)


def open_database(path: Path) -> Engine:
    """Open the database, and make what is missing."""
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}", hide_parameters=True, connect_args={"timeout": 15})
    metadata.create_all(engine)
    return engine
