"""The settings that name the tenant, defined for the database."""

from alembic import op

revision: str = "20261122_settings"
down_revision: str | None = "20261122_roles"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.define_tenant_settings()


def downgrade() -> None:
    op.undefine_tenant_settings()
