"""The key service's tables.

Owns: the one MetaData of the server side, columns, keys and indexes of the key service.
Does not know about: what the rows mean (service/), the mailbox's tables, which register on the same MetaData.

Times are Unix milliseconds. Bytes of wire objects are stored as they came, so what is served is what was signed.
"""

from enum import IntEnum
from typing import Final, final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

from e2ee.limits import MAX_USER_ID

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

MAX_RATE_LIMIT_NAME: Final = 3 * MAX_USER_ID


@final
class DeviceStatus(IntEnum):
    """A device's life. It never goes back."""

    PENDING = 0
    """Registered, in no accepted list yet."""
    ACTIVE = 1
    """In the newest accepted list, with the keys it registered."""
    RETIRED = 2
    """Left the list. The row stays, because a device id never returns."""


@final
class PreKeyKind(IntEnum):
    """What a prekey is for. All kinds of a device share one id space."""

    SIGNED = 1
    ONE_TIME = 2
    ONE_TIME_KEM = 3
    LAST_RESORT_KEM = 4


def _address(*, primary_key: bool = True) -> tuple[Column[str], Column[bytes]]:
    return (
        Column("user_id", String(MAX_USER_ID), primary_key=primary_key, nullable=False),
        Column("device_id", LargeBinary(16), primary_key=primary_key, nullable=False),
    )


def _of_device() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["user_id", "device_id"], ["e2ee_devices.user_id", "e2ee_devices.device_id"], ondelete="CASCADE"
    )


users: Final = Table(
    "e2ee_users",
    metadata,
    Column("user_id", String(MAX_USER_ID), primary_key=True),
    # Empty until the first device list is accepted.
    Column("account_key", LargeBinary(32)),
    Column("list_seq", BigInteger, nullable=False),
    Column("list_hash", LargeBinary(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Tokens of the host application that were issued before, or in the same second, open nothing.
    Column("revoked_at", BigInteger),
)

devices: Final = Table(
    "e2ee_devices",
    metadata,
    *_address(),
    Column("device_signing_key", LargeBinary(32), nullable=False),
    Column("identity_key", LargeBinary(32), nullable=False),
    Column("status", SmallInteger, nullable=False),
    # Part of every device token: raising it ends them all.
    Column("token_version", BigInteger, nullable=False),
    # The highest counter of an accepted login assertion; -1 before the first.
    Column("login_counter", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
    ForeignKeyConstraint(["user_id"], ["e2ee_users.user_id"], ondelete="CASCADE"),
)

device_lists: Final = Table(
    "e2ee_device_lists",
    metadata,
    Column("user_id", String(MAX_USER_ID), ForeignKey("e2ee_users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
)

push_subscriptions: Final = Table(
    "e2ee_push_subscriptions",
    metadata,
    *_address(),
    Column("kind", String(8), nullable=False),
    # An endpoint, or the device's token at the push service.
    Column("target", String(2048), nullable=False),
    Column("public_key", LargeBinary(65), nullable=False),
    Column("auth", LargeBinary(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # When the device was last woken; 0 before.
    Column("woken_at", BigInteger, nullable=False),
    _of_device(),
)

prekeys: Final = Table(
    "e2ee_prekeys",
    metadata,
    *_address(),
    Column("prekey_id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    # SHA-256 of the body; stays when the body is gone.
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary),
    Column("expires_at", BigInteger),
    Column("published_at", BigInteger, nullable=False),
    # When it stopped being offered: claimed if it is a one-time prekey, replaced if not.
    Column("spent_at", BigInteger),
    Column("claim_request", LargeBinary(16)),
    _of_device(),
)
_offered = prekeys.c.spent_at.is_(None)
_spent_with_body = prekeys.c.spent_at.is_not(None) & prekeys.c.body.is_not(None)
Index(
    "ix_e2ee_prekeys_offered",
    *(prekeys.c[name] for name in ("user_id", "device_id", "kind", "published_at", "prekey_id")),
    sqlite_where=_offered,
    postgresql_where=_offered,
)
Index(
    "ix_e2ee_prekeys_spent",
    prekeys.c.spent_at,
    sqlite_where=_spent_with_body,
    postgresql_where=_spent_with_body,
)

claims: Final = Table(
    "e2ee_claims",
    metadata,
    *_address(),  # of the claimer
    Column("request_id", LargeBinary(16), primary_key=True),
    # SHA-256 of what was asked for, so that a request id names one question.
    Column("question", LargeBinary(32), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)

claimed_bundles: Final = Table(
    "e2ee_claimed_bundles",
    metadata,
    *_address(),  # of the claimer
    Column("request_id", LargeBinary(16), primary_key=True),
    Column("target_user_id", String(MAX_USER_ID), nullable=False),
    Column("target_device_id", LargeBinary(16), primary_key=True),
    Column("signed_prekey_id", BigInteger, nullable=False),
    Column("one_time_prekey_id", BigInteger),
    Column("kem_prekey_id", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["user_id", "device_id", "request_id"],
        ["e2ee_claims.user_id", "e2ee_claims.device_id", "e2ee_claims.request_id"],
        ondelete="CASCADE",
    ),
)

logins: Final = Table(
    "e2ee_logins",
    metadata,
    Column("login_id", LargeBinary(16), primary_key=True),
    *_address(primary_key=False),
    # `iat` of the host's token: revoking a user at a time ends the logins made before it.
    Column("host_issued_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    _of_device(),
    Index(None, "user_id", "device_id"),
)

recovery_blobs: Final = Table(
    "e2ee_recovery_blobs",
    metadata,
    Column("user_id", String(MAX_USER_ID), ForeignKey("e2ee_users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
)

link_messages: Final = Table(
    "e2ee_link_messages",
    metadata,
    # Part of the key, so that a link is its user's alone, whoever else draws the same id.
    Column("user_id", String(MAX_USER_ID), primary_key=True),
    Column("link_id", LargeBinary(16), primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    # Of the link, the same in all of its rows.
    Column("expires_at", BigInteger, nullable=False, index=True),
)

rate_limits: Final = Table(
    "e2ee_rate_limits",
    metadata,
    Column("name", String(MAX_RATE_LIMIT_NAME), primary_key=True),
    # When the bucket will be full again. No row means that it is full.
    Column("full_at", BigInteger, nullable=False, index=True),
)
