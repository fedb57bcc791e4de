"""Leases of what only one process may do at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of leases."""
    op.create_table(
        "e2ee_leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_e2ee_leases"),
    )
    op.create_index("ix_e2ee_leases_owner", "e2ee_leases", ["owner"], unique=False)


def downgrade() -> None:
    """Drop the table: leases are worth seconds."""
    op.drop_table("e2ee_leases")
