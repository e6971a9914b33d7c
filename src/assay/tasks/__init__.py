"""Assay's tasks: each parses its arguments and calls a service for the tenant it runs for."""

from assay.tasks.diagnostics import echo, manual_db_example
from assay.tasks.runs import (
    execute_single_test,
    execute_test_configuration,
    resume_stalled_runs,
    sweep_runs,
)
from assay.tasks.sets import count_test_sets, get_test_configuration

__all__ = [
    "count_test_sets",
    "echo",
    "execute_single_test",
    "execute_test_configuration",
    "get_test_configuration",
    "manual_db_example",
    "resume_stalled_runs",
    "sweep_runs",
]
