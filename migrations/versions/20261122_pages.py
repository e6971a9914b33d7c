"""Indexes by which lists are read page by page, each page at the same cost."""

from alembic import op

revision: str = "20261122_pages"
down_revision: str | None = "20261122_broker"
branch_labels: str | None = None
depends_on: str | None = None

INDEXES = (
    ("users", ("created_at", "id")),
    ("endpoints", ("created_at", "id")),
    ("test_configurations", ("created_at", "id")),
    ("test_results", ("test_run_id", "created_at", "id")),
)


def upgrade() -> None:
    op.assume_owner()
    for table, columns in INDEXES:
        op.create_index(
            f"ix_{table}_organization_id_{'_'.join(columns)}", table, ["organization_id", *columns]
        )


def downgrade() -> None:
    op.assume_owner()
    for table, columns in reversed(INDEXES):
        op.drop_index(f"ix_{table}_organization_id_{'_'.join(columns)}", table)
