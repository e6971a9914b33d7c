"""What every request passes: its body is bounded, its answer names it, and it is counted."""

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenantry.fastapi import ProblemResponse

logger = logging.getLogger("assay.api")

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
        private = "authorization" in Headers(scope=scope)
        status: int | None = None
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if private:
                    # No cache on the way may give one tenant's answer to another.
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status is not None:
                raise
            # Here, not further out, where its id would be missing.
            await ProblemResponse(500)(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._requests.labels(method, route, str(status or 500)).inc()
            self._duration.labels(method, route).observe(time.perf_counter() - began)


class BoundedBodies:
    """Ends a request whose body is too long, where it is being read; what it says does not count.

    The limit of Starlette answers in plain text and before the application's other middleware.
    """

    def __init__(
        self, app: ASGIApp, largest: int, exceptions: Mapping[tuple[str, str], int]
    ) -> None:
        """Keep the limit in bytes, and those of methods and paths that have one of their own.

        By the method too: what is no import is parsed as JSON before its token is looked at.
        """
        self._app = app
        self._largest = largest
        self._exceptions = exceptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        largest = self._exceptions.get((scope["method"], path), self._largest)
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > largest:
                raise HTTPException(413, f"the body is longer than {largest:,} bytes")
            return message

        await self._app(scope, bounded, send)
