"""The group roles and their rights in this database."""

from alembic import context, op

from tenantry import Settings

revision: str = "20261122_roles"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_tenancy_roles(logins=_application_logins())


def downgrade() -> None:
    op.release_tenancy_roles()


def _application_logins() -> list[str]:
    """Return the login of DATABASE_URL, or of the program that calls Alembic."""
    url = (
        context.config.attributes.get("application_url") or Settings.from_environment().database_url
    )
    return [url.username] if url is not None and url.username else ["tenantry_login"]
