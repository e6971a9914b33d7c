"""The API: `uvicorn assay.app:app`."""

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, ProcessCollector
from sqlalchemy.orm import Session, sessionmaker
from starlette.staticfiles import StaticFiles

from assay.config import Settings
from assay.database import SessionLocal
from assay.middleware import BoundedBodies, ObservedRequests
from assay.routes import ROUTERS
from assay.routes.problems import add_assay_problems
from assay.services.authentication import Authenticator
from tenantry.fastapi import install_tenancy

_ASSETS: Final = "/docs/assets"

_DESCRIPTION: Final = """\
Sets of tests for AI applications, organization by organization. Every request works for the
organization of its token, and sees nothing of any other: what is another's is not found.
"""


def create_app(
    settings: Settings | None = None, *, sessions: sessionmaker[Session] = SessionLocal
) -> FastAPI:
    """Return the application; it starts only where tenants are kept apart as its mode demands.

    Args:
        settings: by default the environment's.
        sessions: makes the Sessions of its requests.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    settings = settings or Settings.from_environment()
    policy = settings.api
    app = FastAPI(
        title="Assay",
        version="0.1.0",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.policy = policy
    app.state.endpoints = settings.endpoints
    app.state.sessions = sessions
    app.state.registry = CollectorRegistry()
    ProcessCollector(registry=app.state.registry)
    app.state.authenticator = Authenticator(policy, sessions)
    install_tenancy(app, sessions=sessions)
    add_assay_problems(app)
    app.add_middleware(
        BoundedBodies,
        largest=policy.largest_body,
        exceptions={("POST", "/test_sets/import"): policy.largest_import},
    )
    # The last one added is the first that a request passes.
    app.add_middleware(ObservedRequests, registry=app.state.registry)
    for router in ROUTERS:
        app.include_router(router)
    _add_documentation(app)
    return app


def _add_documentation(app: FastAPI) -> None:
    """Serve Swagger UI from the files of a package; the browser asks nobody else."""
    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        """Show the documentation that one can try out."""
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "/openapi.json",
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
            swagger_ui_parameters={"persistAuthorization": False, "tryItOutEnabled": True},
        )


app: Final = create_app()
