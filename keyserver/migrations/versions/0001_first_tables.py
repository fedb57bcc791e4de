"""The first tables: key service and mailbox.

A migration is history: it names every column itself and imports no table of today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables, those that others refer to first."""
    _create_claims()
    _create_inboxes()
    _create_rate_limits()
    _create_send_counters()
    _create_users()
    _create_claimed_bundles()
    _create_device_lists()
    _create_devices()
    _create_inbox_senders()
    _create_envelopes()
    _create_logins()
    _create_prekeys()


def _create_claims() -> None:
    op.create_table(
        "e2ee_claims",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("request_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("question", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", "request_id", name="pk_e2ee_claims"),
    )
    op.create_index("ix_e2ee_claims_created_at", "e2ee_claims", ["created_at"], unique=False)


def _create_inboxes() -> None:
    op.create_table(
        "e2ee_inboxes",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("head_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("acked_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("acked_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped_through", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("envelopes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_e2ee_inboxes"),
        sa.UniqueConstraint("user_id", "device_id", name="uq_e2ee_inboxes_user_id_device_id"),
    )


def _create_rate_limits() -> None:
    op.create_table(
        "e2ee_rate_limits",
        sa.Column("name", sa.String(length=384), nullable=False),
        sa.Column("full_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_e2ee_rate_limits"),
    )
    op.create_index("ix_e2ee_rate_limits_full_at", "e2ee_rate_limits", ["full_at"], unique=False)


def _create_send_counters() -> None:
    op.create_table(
        "e2ee_send_counters",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", name="pk_e2ee_send_counters"),
    )


def _create_users() -> None:
    op.create_table(
        "e2ee_users",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("account_key", sa.LargeBinary(length=32), nullable=True),
        sa.Column("list_seq", sa.BigInteger(), nullable=False),
        sa.Column("list_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_e2ee_users"),
    )


def _create_claimed_bundles() -> None:
    op.create_table(
        "e2ee_claimed_bundles",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("request_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("target_user_id", sa.String(length=128), nullable=False),
        sa.Column("target_device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("signed_prekey_id", sa.BigInteger(), nullable=False),
        sa.Column("one_time_prekey_id", sa.BigInteger(), nullable=True),
        sa.Column("kem_prekey_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "device_id", "request_id"],
            ["e2ee_claims.user_id", "e2ee_claims.device_id", "e2ee_claims.request_id"],
            name="fk_e2ee_claimed_bundles_user_id_device_id_request_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "user_id", "device_id", "request_id", "target_device_id", name="pk_e2ee_claimed_bundles"
        ),
    )


def _create_device_lists() -> None:
    op.create_table(
        "e2ee_device_lists",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["e2ee_users.user_id"], name="fk_e2ee_device_lists_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name="pk_e2ee_device_lists"),
    )


def _create_devices() -> None:
    op.create_table(
        "e2ee_devices",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_signing_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("identity_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("token_version", sa.BigInteger(), nullable=False),
        sa.Column("login_counter", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["e2ee_users.user_id"], name="fk_e2ee_devices_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "device_id", name="pk_e2ee_devices"),
    )


def _create_inbox_senders() -> None:
    op.create_table(
        "e2ee_inbox_senders",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("inbox_id", _ROW_ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("envelopes", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["e2ee_inboxes.id"], name="fk_e2ee_inbox_senders_inbox_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_e2ee_inbox_senders"),
        sa.UniqueConstraint(
            "inbox_id", "user_id", "device_id", name="uq_e2ee_inbox_senders_inbox_id_user_id_device_id"
        ),
    )


def _create_envelopes() -> None:
    op.create_table(
        "e2ee_envelopes",
        sa.Column("inbox_id", _ROW_ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sender_id", _ROW_ID, nullable=False),
        sa.Column("envelope_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["e2ee_inboxes.id"], name="fk_e2ee_envelopes_inbox_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["sender_id"], ["e2ee_inbox_senders.id"], name="fk_e2ee_envelopes_sender_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("inbox_id", "seq", name="pk_e2ee_envelopes"),
        sa.UniqueConstraint("sender_id", "envelope_id", name="uq_e2ee_envelopes_sender_id_envelope_id"),
    )
    op.create_index("ix_e2ee_envelopes_created_at", "e2ee_envelopes", ["created_at"], unique=False)
    op.create_index(
        "ix_e2ee_envelopes_expires_at",
        "e2ee_envelopes",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 0"),
        postgresql_where=sa.text("state = 0"),
    )
    op.create_index(
        "ix_e2ee_envelopes_pending",
        "e2ee_envelopes",
        ["inbox_id", "lane", "seq"],
        unique=False,
        sqlite_where=sa.text("state < 2"),
        postgresql_where=sa.text("state < 2"),
    )


def _create_logins() -> None:
    op.create_table(
        "e2ee_logins",
        sa.Column("login_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("host_issued_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "device_id"],
            ["e2ee_devices.user_id", "e2ee_devices.device_id"],
            name="fk_e2ee_logins_user_id_device_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("login_id", name="pk_e2ee_logins"),
    )
    op.create_index("ix_e2ee_logins_expires_at", "e2ee_logins", ["expires_at"], unique=False)
    op.create_index("ix_e2ee_logins_user_id", "e2ee_logins", ["user_id", "device_id"], unique=False)


def _create_prekeys() -> None:
    op.create_table(
        "e2ee_prekeys",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("prekey_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("spent_at", sa.BigInteger(), nullable=True),
        sa.Column("claim_request", sa.LargeBinary(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id", "device_id"],
            ["e2ee_devices.user_id", "e2ee_devices.device_id"],
            name="fk_e2ee_prekeys_user_id_device_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "device_id", "prekey_id", name="pk_e2ee_prekeys"),
    )
    op.create_index(
        "ix_e2ee_prekeys_offered",
        "e2ee_prekeys",
        ["user_id", "device_id", "kind", "published_at", "prekey_id"],
        unique=False,
        sqlite_where=sa.text("spent_at IS NULL"),
        postgresql_where=sa.text("spent_at IS NULL"),
    )
    op.create_index(
        "ix_e2ee_prekeys_spent",
        "e2ee_prekeys",
        ["spent_at"],
        unique=False,
        sqlite_where=sa.text("spent_at IS NOT NULL AND body IS NOT NULL"),
        postgresql_where=sa.text("spent_at IS NOT NULL AND body IS NOT NULL"),
    )
