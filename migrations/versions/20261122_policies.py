"""The wall of each tenant table, and the grants that end at it."""

from alembic import op

revision: str = "20261122_policies"
down_revision: str | None = "20261122_tables"
branch_labels: str | None = None
depends_on: str | None = None

TABLES = (
    "users",
    "endpoints",
    "test_sets",
    "tests",
    "test_set_tests",
    "test_configurations",
    "test_runs",
    "test_results",
)


def upgrade() -> None:
    op.assume_owner()
    op.isolate_table("organizations", column="id")
    op.isolate_table("api_tokens", reader_role="tenantry_authenticator")
    for table in TABLES:
        op.isolate_table(table)


def downgrade() -> None:
    op.assume_owner()
    for table in reversed(TABLES):
        op.expose_table(table)
    op.expose_table("api_tokens", reader_role="tenantry_authenticator")
    op.expose_table("organizations", column="id")
