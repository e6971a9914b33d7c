"""Running a set of tests against an application: where it is, what to run, what came of it."""

import enum
import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Integer, Text, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column, relationship

from assay.models.base import Base, Timestamped
from assay.models.organizations import organization_reference
from assay.models.tests import TestSet
from tenantry import TenantMixin, tenant_index, tenant_reference
from tenantry.types import text_enum


class RunStatus(enum.StrEnum):
    """Where a run stands; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verdict(enum.StrEnum):
    """What came of one test; `error` means that it could not be executed."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    ERROR = "error"


class Endpoint(TenantMixin, Timestamped, Base):
    """An application under test: where prompts are posted."""

    __tablename__ = "endpoints"
    __table_args__ = (
        organization_reference(),
        UniqueConstraint("organization_id", "name"),
        CheckConstraint("url ~ '^https?://'", name="url"),
        CheckConstraint("timeout_seconds between 1 and 600", name="timeout_seconds"),
        tenant_index("ix_endpoints_organization_id_created_at_id", "created_at", "id"),
    )

    name: Mapped[str] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)
    timeout_seconds: Mapped[int] = mapped_column(Integer, server_default="30")


class TestConfiguration(TenantMixin, Timestamped, Base):
    """A set of tests and the endpoint to run it against."""

    __tablename__ = "test_configurations"
    __table_args__ = (
        organization_reference(),
        tenant_reference("test_sets", "test_set_id", ondelete="CASCADE"),
        tenant_reference("endpoints", "endpoint_id", ondelete="CASCADE"),
        UniqueConstraint("organization_id", "name"),
        tenant_index("ix_test_configurations_organization_id_test_set_id", "test_set_id"),
        tenant_index("ix_test_configurations_organization_id_endpoint_id", "endpoint_id"),
        tenant_index("ix_test_configurations_organization_id_created_at_id", "created_at", "id"),
    )

    name: Mapped[str] = mapped_column(Text)
    test_set_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    endpoint_id: Mapped[uuid.UUID] = mapped_column(Uuid)

    test_set: Mapped[TestSet] = relationship(viewonly=True)
    endpoint: Mapped[Endpoint] = relationship(viewonly=True)


class TestRun(TenantMixin, Timestamped, Base):
    """One execution of a configuration, created once for each task id.

    `error` says why a run failed or was cancelled where its results do not.
    """

    __tablename__ = "test_runs"
    __table_args__ = (
        organization_reference(),
        tenant_reference("test_configurations", "test_configuration_id", ondelete="SET NULL"),
        tenant_reference("users", "started_by_id", ondelete="SET NULL"),
        UniqueConstraint("organization_id", "task_id"),
        tenant_index("ix_test_runs_organization_id_test_configuration_id", "test_configuration_id"),
        tenant_index("ix_test_runs_organization_id_started_by_id", "started_by_id"),
        tenant_index("ix_test_runs_organization_id_created_at_id", "created_at", "id"),
    )

    test_configuration_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    started_by_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    task_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    status: Mapped[RunStatus] = mapped_column(
        text_enum(RunStatus, "status"), server_default=RunStatus.QUEUED.value
    )
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    error: Mapped[str | None] = mapped_column(Text)

    test_configuration: Mapped[TestConfiguration | None] = relationship(viewonly=True)
    results: Mapped[list["TestResult"]] = relationship(viewonly=True)


class TestResult(TenantMixin, Timestamped, Base):
    """What came of one test in one run; there is one at most."""

    __tablename__ = "test_results"
    __table_args__ = (
        organization_reference(),
        tenant_reference("test_runs", "test_run_id", ondelete="CASCADE"),
        tenant_reference("tests", "test_id", ondelete="CASCADE"),
        UniqueConstraint("organization_id", "test_run_id", "test_id"),
        CheckConstraint("duration_ms >= 0", name="duration_ms"),
        tenant_index("ix_test_results_organization_id_test_id", "test_id"),
        # Pages of a run's results, and when the last of them came.
        tenant_index(
            "ix_test_results_organization_id_test_run_id_created_at_id",
            "test_run_id",
            "created_at",
            "id",
        ),
    )

    test_run_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    test_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    verdict: Mapped[Verdict] = mapped_column(text_enum(Verdict, "verdict"))
    received: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
