"""The tables of organizations, tests and runs; nobody may use them before they are walled off."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261122_tables"
down_revision: str | None = "20261122_settings"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.assume_owner()
    op.create_table(
        "organizations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        *timestamps(),
        sa.CheckConstraint("btrim(name) <> ''", name=op.f("ck_organizations_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "endpoints",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), server_default="30", nullable=False),
        *timestamps(),
        sa.CheckConstraint("url ~ '^https?://'", name=op.f("ck_endpoints_url")),
        sa.CheckConstraint(
            "timeout_seconds between 1 and 600", name=op.f("ck_endpoints_timeout_seconds")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_endpoints_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint(
            "organization_id", "name", name=op.f("uq_endpoints_organization_id_name")
        ),
    )
    op.create_table(
        "test_sets",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        *timestamps(),
        sa.CheckConstraint("btrim(name) <> ''", name=op.f("ck_test_sets_name")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_test_sets_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_test_sets")),
        sa.UniqueConstraint(
            "organization_id", "name", name=op.f("uq_test_sets_organization_id_name")
        ),
    )
    op.create_index(
        "ix_test_sets_organization_id_created_at_id",
        "test_sets",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "tests",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("expected", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "metric",
            sa.Enum(
                "exact",
                "contains",
                "regex",
                "numeric",
                "any_of",
                name="metric",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        *timestamps(),
        sa.CheckConstraint("btrim(prompt) <> ''", name=op.f("ck_tests_prompt")),
        sa.CheckConstraint("cardinality(expected) > 0", name=op.f("ck_tests_expected")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_tests_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_tests")),
    )
    op.create_index(
        "ix_tests_organization_id_created_at_id",
        "tests",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "users",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        *timestamps(),
        sa.CheckConstraint("email like '%_@_%'", name=op.f("ck_users_email")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_users_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_users")),
        sa.UniqueConstraint(
            "organization_id", "email", name=op.f("uq_users_organization_id_email")
        ),
    )
    op.create_table(
        "api_tokens",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        *timestamps(),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_api_tokens_token_hash")),
        sa.ForeignKeyConstraint(
            ["organization_id", "user_id"],
            ["users.organization_id", "users.id"],
            name=op.f("fk_api_tokens_organization_id_user_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_api_tokens_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint(
            "organization_id", "token_hash", name=op.f("uq_api_tokens_organization_id_token_hash")
        ),
    )
    op.create_index(
        "ix_api_tokens_organization_id_user_id",
        "api_tokens",
        ["organization_id", "user_id"],
        unique=False,
    )
    op.create_index(
        "ix_api_tokens_token_hash", "api_tokens", ["token_hash"], postgresql_using="hash"
    )
    op.execute("alter table api_tokens alter column token_hash set statistics 0")
    op.create_table(
        "test_configurations",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("test_set_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        *timestamps(),
        sa.ForeignKeyConstraint(
            ["organization_id", "endpoint_id"],
            ["endpoints.organization_id", "endpoints.id"],
            name=op.f("fk_test_configurations_organization_id_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_set_id"],
            ["test_sets.organization_id", "test_sets.id"],
            name=op.f("fk_test_configurations_organization_id_test_set_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_test_configurations_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_test_configurations")),
        sa.UniqueConstraint(
            "organization_id", "name", name=op.f("uq_test_configurations_organization_id_name")
        ),
    )
    op.create_index(
        "ix_test_configurations_organization_id_endpoint_id",
        "test_configurations",
        ["organization_id", "endpoint_id"],
        unique=False,
    )
    op.create_index(
        "ix_test_configurations_organization_id_test_set_id",
        "test_configurations",
        ["organization_id", "test_set_id"],
        unique=False,
    )
    op.create_table(
        "test_set_tests",
        organization_id(),
        sa.Column("test_set_id", sa.Uuid(), nullable=False),
        sa.Column("test_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_id"],
            ["tests.organization_id", "tests.id"],
            name=op.f("fk_test_set_tests_organization_id_test_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_set_id"],
            ["test_sets.organization_id", "test_sets.id"],
            name=op.f("fk_test_set_tests_organization_id_test_set_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_test_set_tests_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "organization_id", "test_set_id", "test_id", name=op.f("pk_test_set_tests")
        ),
        sa.UniqueConstraint(
            "organization_id",
            "test_set_id",
            "position",
            name=op.f("uq_test_set_tests_organization_id_test_set_id_position"),
        ),
    )
    op.create_index(
        "ix_test_set_tests_organization_id_test_id",
        "test_set_tests",
        ["organization_id", "test_id"],
        unique=False,
    )
    op.create_table(
        "test_runs",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("test_configuration_id", sa.Uuid(), nullable=True),
        sa.Column("started_by_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "queued",
                "running",
                "completed",
                "partial",
                "failed",
                "cancelled",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        *timestamps(),
        sa.ForeignKeyConstraint(
            ["organization_id", "started_by_id"],
            ["users.organization_id", "users.id"],
            name=op.f("fk_test_runs_organization_id_started_by_id"),
            ondelete="SET NULL (started_by_id)",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_configuration_id"],
            ["test_configurations.organization_id", "test_configurations.id"],
            name=op.f("fk_test_runs_organization_id_test_configuration_id"),
            ondelete="SET NULL (test_configuration_id)",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_test_runs_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_test_runs")),
        sa.UniqueConstraint(
            "organization_id", "task_id", name=op.f("uq_test_runs_organization_id_task_id")
        ),
    )
    op.create_index(
        "ix_test_runs_organization_id_created_at_id",
        "test_runs",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_test_runs_organization_id_started_by_id",
        "test_runs",
        ["organization_id", "started_by_id"],
        unique=False,
    )
    op.create_index(
        "ix_test_runs_organization_id_test_configuration_id",
        "test_runs",
        ["organization_id", "test_configuration_id"],
        unique=False,
    )
    op.create_table(
        "test_results",
        organization_id(),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("test_run_id", sa.Uuid(), nullable=False),
        sa.Column("test_id", sa.Uuid(), nullable=False),
        sa.Column(
            "verdict",
            sa.Enum(
                "pass",
                "fail",
                "error",
                name="verdict",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("received", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        *timestamps(),
        sa.CheckConstraint("duration_ms >= 0", name=op.f("ck_test_results_duration_ms")),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_id"],
            ["tests.organization_id", "tests.id"],
            name=op.f("fk_test_results_organization_id_test_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "test_run_id"],
            ["test_runs.organization_id", "test_runs.id"],
            name=op.f("fk_test_results_organization_id_test_run_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_test_results_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_test_results")),
        sa.UniqueConstraint(
            "organization_id",
            "test_run_id",
            "test_id",
            name=op.f("uq_test_results_organization_id_test_run_id_test_id"),
        ),
    )
    op.create_index(
        "ix_test_results_organization_id_test_id",
        "test_results",
        ["organization_id", "test_id"],
        unique=False,
    )


def downgrade() -> None:
    op.assume_owner()
    op.drop_index("ix_test_results_organization_id_test_id", table_name="test_results")
    op.drop_table("test_results")
    op.drop_index("ix_test_runs_organization_id_test_configuration_id", table_name="test_runs")
    op.drop_index("ix_test_runs_organization_id_started_by_id", table_name="test_runs")
    op.drop_index("ix_test_runs_organization_id_created_at_id", table_name="test_runs")
    op.drop_table("test_runs")
    op.drop_index("ix_test_set_tests_organization_id_test_id", table_name="test_set_tests")
    op.drop_table("test_set_tests")
    op.drop_index(
        "ix_test_configurations_organization_id_test_set_id", table_name="test_configurations"
    )
    op.drop_index(
        "ix_test_configurations_organization_id_endpoint_id", table_name="test_configurations"
    )
    op.drop_table("test_configurations")
    op.drop_index("ix_api_tokens_token_hash", table_name="api_tokens")
    op.drop_index("ix_api_tokens_organization_id_user_id", table_name="api_tokens")
    op.drop_table("api_tokens")
    op.drop_table("users")
    op.drop_index("ix_tests_organization_id_created_at_id", table_name="tests")
    op.drop_table("tests")
    op.drop_index("ix_test_sets_organization_id_created_at_id", table_name="test_sets")
    op.drop_table("test_sets")
    op.drop_table("endpoints")
    op.drop_table("organizations")


def organization_id() -> sa.Column[object]:
    """Return the tenant column, filled from the bound tenant."""
    default = sa.text("nullif(current_setting('app.current_organization', true), '')::uuid")
    return sa.Column("organization_id", sa.Uuid(), server_default=default, nullable=False)


def timestamps() -> tuple[sa.Column[object], sa.Column[object]]:
    """Return the columns that say when a row was created and last changed."""
    now = sa.text("now()")
    return (
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
    )
