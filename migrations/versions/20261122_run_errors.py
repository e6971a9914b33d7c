"""Why a run could not start, or was ended before its tests were."""

import sqlalchemy as sa
from alembic import op

revision: str = "20261122_run_errors"
down_revision: str | None = "20261122_maintenance_log"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.assume_owner()
    op.add_column("test_runs", sa.Column("error", sa.Text(), nullable=True))


def downgrade() -> None:
    op.assume_owner()
    op.drop_column("test_runs", "error")
