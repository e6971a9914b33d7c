"""The record of each background task: outbox, audit, and the one way to a task's status."""

import sqlalchemy as sa
from alembic import op

revision: str = "20261122_task_records"
down_revision: str | None = "20261122_run_errors"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.assume_owner()
    tenant = sa.text("nullif(current_setting('app.current_organization', true), '')::uuid")
    now = sa.text("now()")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "task_records",
        sa.Column("organization_id", sa.Uuid(), server_default=tenant, nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "dispatched",
                "started",
                "retry",
                "success",
                "failure",
                "revoked",
                "lost",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("args_digest", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("eta", moment, nullable=True),
        sa.Column("due_at", moment, nullable=True),
        sa.Column("queued_at", moment, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("dispatched_at", moment, nullable=True),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("finished_at", moment, nullable=True),
        sa.Column("runtime", sa.Float(), nullable=True),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("updated_at", moment, server_default=now, nullable=False),
        sa.CheckConstraint("length(args_digest) = 64", name=op.f("ck_task_records_args_digest")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_task_records_organization_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_task_records")),
    )
    op.create_index(
        "ix_task_records_organization_id_queued_at_id",
        "task_records",
        ["organization_id", "queued_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_task_records_organization_id_due_at",
        "task_records",
        ["organization_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at is not null"),
    )
    op.isolate_table("task_records")


def downgrade() -> None:
    op.assume_owner()
    op.expose_table("task_records")
    op.drop_table("task_records")
