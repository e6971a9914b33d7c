"""Routes: each parses a request, calls one service, and shows what it returned."""

from assay.routes import (
    endpoints,
    health,
    organizations,
    test_configurations,
    test_sets,
    tests,
    users,
)

ROUTERS = (
    health.router,
    organizations.router,
    users.router,
    test_sets.router,
    tests.router,
    endpoints.router,
    test_configurations.router,
)

__all__ = ["ROUTERS"]
