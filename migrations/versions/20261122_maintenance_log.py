"""The append-only log of work across tenants."""

from alembic import op

revision: str = "20261122_maintenance_log"
down_revision: str | None = "20261122_authentication"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.assume_owner()
    op.create_maintenance_log()


def downgrade() -> None:
    op.assume_owner()
    op.drop_maintenance_log()
