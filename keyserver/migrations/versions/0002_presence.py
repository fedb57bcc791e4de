"""Leases of devices that want to be seen."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of leases."""
    op.create_table(
        "e2ee_presence",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("connection_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "device_id", name="pk_e2ee_presence"),
    )
    op.create_index("ix_e2ee_presence_connection_id", "e2ee_presence", ["connection_id"], unique=True)
    op.create_index("ix_e2ee_presence_expires_at", "e2ee_presence", ["expires_at"], unique=False)


def downgrade() -> None:
    """Drop the table: leases are worth half a minute."""
    op.drop_table("e2ee_presence")
