"""Asking the application under test: one prompt out, one answer back, within bounds."""

import functools
import json
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import httpcore
import httpx

from assay.config import EndpointPolicy
from assay.exceptions import EndpointError, RefusedEndpointError
from assay.services.addresses import CheckedBackend

LONGEST_KEPT: Final = 8192
"""Characters of an answer that a result keeps."""

_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application under test answered."""

    text: str
    duration_ms: int


def ask(url: str, prompt: str, *, timeout: float, policy: EndpointPolicy) -> Answer:
    """Post `{"prompt": …}` to the endpoint and return the text of its `{"answer": …}`.

    The time counts for everything together, so that an answer in drops is none. Redirects are not
    followed, and neither proxies nor credentials are taken from the environment.

    Args:
        url: of the endpoint.
        prompt: what is asked.
        timeout: seconds for the whole exchange.
        policy: which hosts may be called, and how many bytes are read.

    Raises:
        RefusedEndpointError: the URL, or every address of its host, is one not to be called.
        EndpointError: no answer, or none of the form agreed on; has what was received.
    """
    target = checked_url(url, policy)
    started = time.monotonic()
    transport = _Transport(policy, deadline=started + timeout)
    try:
        with (
            httpx.Client(transport=transport, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST",
                target,
                json={"prompt": prompt},
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as response,
        ):
            body = _bounded(response, policy.longest_answer)
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        raise EndpointError(f"no complete answer within {timeout:g} s") from error
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpx.HTTPError,
        httpx.InvalidURL,
    ) as error:
        raise EndpointError(f"the endpoint cannot be asked: {error}") from error
    duration = round((time.monotonic() - started) * 1000)
    return Answer(_answer_text(response, body), duration)


def checked_url(url: str, policy: EndpointPolicy) -> httpx.URL:
    """Return the URL of an endpoint that may be called, as far as the URL alone can say.

    Raises:
        RefusedEndpointError: it is no URL, not https (and its host is not allowed without), or
            has a user and password in it.
    """
    try:
        parsed = httpx.URL(url)
        # Decoded from Punycode each time that it is asked for.
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise RefusedEndpointError(f"{url!r} is no URL: {error}") from error
    if not host:
        raise RefusedEndpointError(f"{url!r} names no host")
    if parsed.userinfo:
        raise RefusedEndpointError(
            f"the endpoint's URL for host {host!r} has a user or password in it"
        )
    if parsed.scheme != "https" and not (
        parsed.scheme == "http" and host.lower() in policy.http_hosts
    ):
        raise RefusedEndpointError(
            f"{parsed.scheme!r} is not allowed for host {host!r}: use https, or an operator "
            "names the host in ASSAY_HTTP_HOSTS"
        )
    return parsed


def storable(text: str, limit: int = LONGEST_KEPT) -> str:
    """Return the text as PostgreSQL can hold it, cut to so many characters."""
    kept = text if len(text) <= limit else text[: limit - 1] + "…"
    return kept.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _bounded(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            raise EndpointError(
                f"the answer is longer than {limit} bytes", received=_shown(bytes(body))
            )
    return bytes(body)


def _answer_text(response: httpx.Response, body: bytes) -> str:
    received = _shown(body)
    if response.status_code not in _SUCCESS:
        raise EndpointError(f"the endpoint answered {response.status_code}", received=received)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise EndpointError("the answer is compressed, which was not asked for", received=received)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"the answer is not JSON: {error}", received=received) from error
    text = answer.get("answer") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise EndpointError('the answer is no {"answer": "text"}', received=received)
    return text


def _shown(body: bytes) -> str:
    return storable(body[: 4 * LONGEST_KEPT].decode(errors="replace"))


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


class _Transport(httpx.BaseTransport):
    """One exchange over a connection to a checked address."""

    def __init__(self, policy: EndpointPolicy, *, deadline: float) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=1,
            network_backend=CheckedBackend(policy, deadline=deadline),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("the request's content is asynchronous")
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
            )
        )
        if not isinstance(response.stream, Iterable):
            raise TypeError("the response's content is asynchronous")
        return httpx.Response(
            response.status, headers=response.headers, stream=_Stream(response.stream, response)
        )

    def close(self) -> None:
        self._pool.close()


class _Stream(httpx.SyncByteStream):
    """The body of a response, and what closes it."""

    def __init__(self, chunks: Iterable[bytes], response: httpcore.Response) -> None:
        self._chunks = chunks
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks

    def close(self) -> None:
        self._response.close()
