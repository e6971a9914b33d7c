"""Endpoints: where a request really goes, and how long and how much it is listened to."""

import http.server
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from assay.config import EndpointPolicy
from assay.exceptions import EndpointError, RefusedEndpointError
from assay.services.endpoints import ask, storable

LOCAL = EndpointPolicy(
    http_hosts=frozenset({"127.0.0.1", "app.test", "localhost"}),
    networks=(ipaddress.ip_network("127.0.0.1/32"),),
)
STRICT = EndpointPolicy(http_hosts=LOCAL.http_hosts)

Respond = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]
Serve = Callable[[Respond], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return what starts a server on 127.0.0.1 with this response, and gives its URL."""
    with ExitStack() as stack:
        yield lambda respond: stack.enter_context(_serving(respond))


@contextmanager
def _serving(respond: Respond) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            respond(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _speaking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection with raw bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    speak(client)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def _reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except ConnectionError:
        handler.close_connection = True


def test_prompt_is_posted_as_json_and_the_answer_returned(serve: Serve) -> None:
    """The protocol: {"prompt"} goes out, {"answer"} comes back, nothing else is sent along."""
    seen: list[tuple[bytes, str | None]] = []

    def respond(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        seen.append((body, handler.headers.get("Host")))
        _reply(handler, 200, b'{"answer": "Paris \\u00e9"}')

    url = serve(respond)
    assert ask(url, "Capital of France?", timeout=60, policy=LOCAL).text == "Paris é"
    assert json.loads(seen[0][0]) == {"prompt": "Capital of France?"}
    assert seen[0][1] == url.removeprefix("http://").rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://user:secret@example.org/",
        "https:///path",
        "//example.org",
        "https://[::1/",
    ],
)
def test_url_that_is_not_plain_https_is_refused(url: str) -> None:
    """No request is made for another scheme, for plain http to any host, or with a password."""
    with pytest.raises(RefusedEndpointError) as refused:
        ask(url, "?", timeout=1, policy=LOCAL)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:7f00:1]"],
)
def test_loopback_is_refused_however_it_is_written(host: str, serve: Serve) -> None:
    """The address is checked, not the text: a server that listens there is never reached."""
    reached: list[bytes] = []
    port = serve(lambda _, body: reached.append(body)).rstrip("/").rpartition(":")[2]
    policy = EndpointPolicy(http_hosts=frozenset({host.strip("[]"), "::ffff:127.0.0.1"}))
    with pytest.raises(EndpointError):
        ask(f"http://{host}:{port}/", "?", timeout=2, policy=policy)
    assert not reached


def test_metadata_address_is_refused_over_https() -> None:
    """The credentials that a cloud serves to its instances cannot be asked for."""
    with pytest.raises(RefusedEndpointError, match=r"169\.254\.169\.254.*no public address"):
        ask("https://169.254.169.254/latest/meta-data/", "?", timeout=2, policy=STRICT)


def test_name_is_resolved_once_and_the_checked_address_is_connected_to(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers differently the second time (DNS rebinding) is asked no second time."""
    port = int(
        serve(lambda h, _: _reply(h, 200, b'{"answer": "x"}')).rstrip("/").rpartition(":")[2]
    )
    asked: list[str] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        address = "127.0.0.1" if asked.count("app.test") == 1 else "10.9.9.9"
        found = "127.0.0.1" if host == "127.0.0.1" else address
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert ask(f"http://app.test:{port}/", "?", timeout=60, policy=LOCAL).text == "x"
    assert asked.count("app.test") == 1


def test_private_address_behind_a_public_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that resolves to a private address is refused with that address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(RefusedEndpointError, match=r"10\.0\.0\.7"):
        ask("https://intranet.example.org/", "?", timeout=2, policy=STRICT)


def test_redirect_is_an_error_and_not_followed(serve: Serve) -> None:
    """A redirect to an inner address cannot be used to get around the check."""
    reached: list[bytes] = []
    inner = serve(lambda _, body: reached.append(body))
    outer = serve(lambda handler, _: _reply(handler, 307, b"", Location=inner))
    with pytest.raises(EndpointError, match="answered 307"):
        ask(outer, "?", timeout=60, policy=LOCAL)
    assert not reached


def test_proxy_of_the_environment_is_not_used(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name itself, unchecked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")
    url = serve(lambda handler, _: _reply(handler, 200, b'{"answer": "direct"}'))
    assert ask(url, "?", timeout=60, policy=LOCAL).text == "direct"


def test_answer_in_drops_ends_with_the_deadline() -> None:
    """Time counts for the whole exchange: a byte now and then does not prolong it."""

    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.05):
            client.sendall(b"X-Pad: x\r\n")

    over = threading.Event()
    with _speaking(drip) as url, pytest.raises(EndpointError, match="within 1 s"):
        ask(url, "?", timeout=1, policy=LOCAL)
    over.set()


def test_endless_answer_ends_with_its_size() -> None:
    """No more is read than the bound, and the result keeps the beginning."""

    def pour(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            client.sendall(b"a" * 65536)

    policy = EndpointPolicy(
        http_hosts=LOCAL.http_hosts, networks=LOCAL.networks, longest_answer=100_000
    )
    with _speaking(pour) as url, pytest.raises(EndpointError, match="longer than 100000") as error:
        ask(url, "?", timeout=60, policy=policy)
    assert error.value.received is not None
    assert len(error.value.received) <= 8192


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b'{"answer": "cut', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"answer": 1}', "no "),
        (b"[]", "no "),
        (b'{"text": "x"}', "no "),
    ],
)
def test_malformed_answer_is_an_error_with_what_was_received(
    body: bytes, message: str, serve: Serve
) -> None:
    """What is not as agreed is kept, so that a person can see what came."""
    url = serve(lambda handler, _: _reply(handler, 200, body))
    with pytest.raises(EndpointError, match=message) as error:
        ask(url, "?", timeout=60, policy=LOCAL)
    assert error.value.received == body.decode()[:8191] + "…" * (len(body) > 8192)


def test_compressed_answer_is_not_unpacked(serve: Serve) -> None:
    """A small answer cannot become a large one: it was not asked to be compressed."""
    url = serve(lambda handler, _: _reply(handler, 200, b"\x1f\x8b", Content_Encoding="gzip"))
    with pytest.raises(EndpointError, match="compressed"):
        ask(url, "?", timeout=60, policy=LOCAL)


def test_endpoint_that_is_down_is_an_error() -> None:
    """Nobody listens: said as such, within the time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EndpointError, match="cannot be asked"):
        ask(f"http://127.0.0.1:{port}/", "?", timeout=60, policy=LOCAL)


def test_text_is_made_such_that_the_database_holds_it() -> None:
    """NUL and half surrogates, which PostgreSQL refuses, are replaced; length is bounded."""
    assert storable("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    assert storable("\ud800") == "?"
    assert storable("x" * 9000) == "x" * 8191 + "…"
