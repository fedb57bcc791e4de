"""Where devices are woken."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of push subscriptions."""
    op.create_table(
        "e2ee_push_subscriptions",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("target", sa.String(length=2048), nullable=False),
        sa.Column("public_key", sa.LargeBinary(length=65), nullable=False),
        sa.Column("auth", sa.LargeBinary(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("woken_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "device_id"],
            ["e2ee_devices.user_id", "e2ee_devices.device_id"],
            name="fk_e2ee_push_subscriptions_user_id_device_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "device_id", name="pk_e2ee_push_subscriptions"),
    )


def downgrade() -> None:
    """Drop the table: devices subscribe again."""
    op.drop_table("e2ee_push_subscriptions")
