"""What users leave at the server to recover their accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of blobs."""
    op.create_table(
        "e2ee_recovery_blobs",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["e2ee_users.user_id"], name="fk_e2ee_recovery_blobs_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name="pk_e2ee_recovery_blobs"),
    )


def downgrade() -> None:
    """Drop the table: devices can store their blobs again."""
    op.drop_table("e2ee_recovery_blobs")
