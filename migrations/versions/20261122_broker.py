"""The schema of Celery's own tables, closed to the application."""

from alembic import op

revision: str = "20261122_broker"
down_revision: str | None = "20261122_task_records"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_broker_schema()
    # Alembic's version table is the owner's.
    op.assume_owner()


def downgrade() -> None:
    op.drop_broker_schema()
    op.assume_owner()
