"""What every request leaves behind: an id that its answer names, and its place in the metrics."""

import re
import time
import uuid
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: Final = "X-Request-ID"

# Whatever else a client sends would end up in logs.
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ObservedRequests:
    """Gives each request an id, and counts it by its route's template, never by its path."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        """Register the metrics; no label tells of a tenant, and a client can make up none."""
        self._app = app
        self._requests = Counter(
            "assay_requests", "Requests", ["method", "route", "status"], registry=registry
        )
        self._duration = Histogram(
            "assay_request_seconds",
            "Time from a request to the end of its response",
            ["method", "route"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        status = 500
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._requests.labels(method, route, str(status)).inc()
            self._duration.labels(method, route).observe(time.perf_counter() - began)
