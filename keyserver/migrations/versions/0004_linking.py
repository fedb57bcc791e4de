"""Messages of devices that are being linked."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of messages."""
    op.create_table(
        "e2ee_link_messages",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("link_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("slot", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "link_id", "slot", name="pk_e2ee_link_messages"),
    )
    op.create_index("ix_e2ee_link_messages_expires_at", "e2ee_link_messages", ["expires_at"], unique=False)


def downgrade() -> None:
    """Drop the table: a link lasts ten minutes."""
    op.drop_table("e2ee_link_messages")
