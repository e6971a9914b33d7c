"""Routes: each parses a request, calls one service, and shows what it returned."""

from assay.routes import endpoints, health, organizations, test_sets

ROUTERS = (
    health.router,
    organizations.router,
    test_sets.router,
    endpoints.router,
)

__all__ = ["ROUTERS"]
