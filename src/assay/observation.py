"""What a worker tells of its tasks: log lines that say whose each is, and numbers on request."""

import os
from collections.abc import Mapping

from celery import Celery

from tenantry import ConfigurationError
from tenantry.celery import install_logging, install_metrics

_PORTS = range(1, 2**16)


def observe(app: Celery, environ: Mapping[str, str] | None = None) -> None:
    """Have the application's workers log and count as the environment says.

    Args:
        app: the application.
        environ: by default that of the process.

    Raises:
        ConfigurationError: a value is malformed.
    """
    environ = os.environ if environ is None else environ
    style = environ.get("CELERY_WORKER_LOG_FORMAT") or "text"
    if style not in {"text", "json"}:
        raise ConfigurationError(f"CELERY_WORKER_LOG_FORMAT is {style!r}: use text or json")
    install_logging(style="json" if style == "json" else "text")
    port = environ.get("CELERY_WORKER_METRICS_PORT")
    if not port:
        return
    if not port.isascii() or not port.isdecimal() or int(port) not in _PORTS:
        raise ConfigurationError(f"CELERY_WORKER_METRICS_PORT is {port!r}: it must be a port")
    address = environ.get("CELERY_WORKER_METRICS_ADDRESS") or "127.0.0.1"
    install_metrics(app, port=int(port), address=address)
