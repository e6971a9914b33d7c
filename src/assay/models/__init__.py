"""Assay's tables."""

from assay.models.base import Base
from assay.models.organizations import ApiToken, Organization, User
from assay.models.runs import (
    Endpoint,
    RunStatus,
    TestConfiguration,
    TestResult,
    TestRun,
    Verdict,
)
from assay.models.task_records import TaskRecord
from assay.models.tests import Metric, Test, TestSet, TestSetTest

__all__ = [
    "ApiToken",
    "Base",
    "Endpoint",
    "Metric",
    "Organization",
    "RunStatus",
    "TaskRecord",
    "Test",
    "TestConfiguration",
    "TestResult",
    "TestRun",
    "TestSet",
    "TestSetTest",
    "User",
    "Verdict",
]
