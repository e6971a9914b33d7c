"""Routes: each parses a request, calls one service, and shows what it returned."""

from assay.routes import (
    endpoints,
    health,
    organizations,
    tasks,
    test_configurations,
    test_runs,
    test_sets,
    tests,
    tokens,
    users,
)

ROUTERS = (
    health.router,
    organizations.router,
    users.router,
    tokens.router,
    test_sets.router,
    tests.router,
    endpoints.router,
    test_configurations.router,
    tasks.router,
    test_runs.router,
)

__all__ = ["ROUTERS"]
