"""Routes: each parses a request, calls one service, and shows what it returned."""

from assay.routes import health, organizations, test_sets

ROUTERS = (health.router, organizations.router, test_sets.router)

__all__ = ["ROUTERS"]
