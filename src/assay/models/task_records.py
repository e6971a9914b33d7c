"""The record of each background task of an organization."""

from sqlalchemy import CheckConstraint, Index, text

from assay.models.base import Base
from assay.models.organizations import organization_reference
from tenantry import tenant_index
from tenantry.celery import TaskRecordMixin


class TaskRecord(TaskRecordMixin, Base):
    """A background task: launched for whom, with what, and what became of it."""

    __tablename__ = "task_records"
    __table_args__ = (
        organization_reference(),
        CheckConstraint("length(args_digest) = 64", name="args_digest"),
        tenant_index("ix_task_records_organization_id_queued_at_id", "queued_at", "id"),
        # Of unfinished tasks alone: the sweeper reads all of it, across organizations.
        Index(
            "ix_task_records_organization_id_due_at",
            "organization_id",
            "due_at",
            postgresql_where=text("due_at is not null"),
        ),
    )
