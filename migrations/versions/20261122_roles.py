"""The group roles and their rights in this database."""

from alembic import op

revision: str = "20261122_roles"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_tenancy_roles()


def downgrade() -> None:
    op.release_tenancy_roles()
