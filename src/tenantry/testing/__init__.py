"""PostgreSQL servers and databases for tests, and the pytest fixtures that hand them out."""

from tenantry.testing.roles import check_unprivileged
from tenantry.testing.servers import Choice, Database, Server, find_server

__all__ = ["Choice", "Database", "Server", "check_unprivileged", "find_server"]
