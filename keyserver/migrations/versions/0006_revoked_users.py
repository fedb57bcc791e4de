"""When a user's logins were revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the time of the last revocation; nobody has one yet."""
    op.add_column("e2ee_users", sa.Column("revoked_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop it: the release before does not ask."""
    # Not in batch mode: that makes the table anew, and dropping the old one would delete every device with it.
    op.drop_column("e2ee_users", "revoked_at")
