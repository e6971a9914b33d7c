"""A real PostgreSQL server for development and tests, where there is no container engine.

The server belongs to a home folder, not to a process: it outlives whoever started it, and every
process with the same home finds it again. It listens on 127.0.0.1 alone and asks every client
for a password.
"""

from tenantry.embedded.bootstrap import Login
from tenantry.embedded.server import EmbeddedServer, ServerStatus, default_server

__all__ = ["EmbeddedServer", "Login", "ServerStatus", "default_server"]
