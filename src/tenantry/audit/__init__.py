"""The audit: one SQL file for each way the wall can be down, run from Python, pytest or psql."""

from tenantry.audit.assertion import assert_isolated
from tenantry.audit.baseline import Allowance, Baseline, read_baseline
from tenantry.audit.catalogue import Check, checks, explanation
from tenantry.audit.parameters import AuditConfig
from tenantry.audit.report import AllowedFinding, Finding, Report, Severity, StaleAllowance, Unseen
from tenantry.audit.runner import run_audit

__all__ = [
    "Allowance",
    "AllowedFinding",
    "AuditConfig",
    "Baseline",
    "Check",
    "Finding",
    "Report",
    "Severity",
    "StaleAllowance",
    "Unseen",
    "assert_isolated",
    "checks",
    "explanation",
    "read_baseline",
    "run_audit",
]
