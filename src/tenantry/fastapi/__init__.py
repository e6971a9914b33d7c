"""FastAPI on the tenant layer: each request works in a Session of whoever was authenticated."""

from tenantry.context import Principal
from tenantry.extras import extras

with extras():
    from tenantry.fastapi.installation import Probed, Sessions, install_tenancy, probe_isolation
    from tenantry.fastapi.problems import (
        PROBLEM_MEDIA_TYPE,
        PROBLEM_SCHEMA,
        ProblemResponse,
        add_problem,
    )
    from tenantry.fastapi.sessions import tenant_session

__all__ = [
    "PROBLEM_MEDIA_TYPE",
    "PROBLEM_SCHEMA",
    "Principal",
    "Probed",
    "ProblemResponse",
    "Sessions",
    "add_problem",
    "install_tenancy",
    "probe_isolation",
    "tenant_session",
]
