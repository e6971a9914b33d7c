"""A wire to a PostgreSQL server that counts how often the client waited, and can be a long one."""

import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from sqlalchemy.engine import URL, make_url

_CHUNK: Final = 65536


class Wire:
    """A proxy on 127.0.0.1 to one server; its URL leads through it.

    A round trip is what the client sent and the server's answer to it, however many messages and
    packets either takes.

    Attributes:
        delay: seconds that everything takes in each direction.
        trips: round trips since the last `clear`, connecting included.
        queries: the texts of the simple-protocol queries among them.
    """

    def __init__(self, url: URL, *, delay: float = 0.0) -> None:
        """Listen on a free port."""
        self.delay = delay
        self.trips = 0
        self.queries: list[str] = []
        self._server = (url.host or "127.0.0.1", url.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        self.url = url.set(host="127.0.0.1", port=port).update_query_dict(plain)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def clear(self) -> None:
        """Count from here."""
        self.trips, self.queries = 0, []

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for answered, queries in _exchanged(client, server, self.delay):
                self.trips += answered
                self.queries += queries


def _exchanged(
    client: socket.socket, server: socket.socket, delay: float
) -> Iterator[tuple[bool, list[str]]]:
    """Carry everything both ways until either end is closed.

    Yields whether the server's first answer to something went by, and the queries that did.
    """
    others = {client: server, server: client}
    reader = _QueryReader()
    due: deque[tuple[float, socket.socket, bytes]] = deque()
    asked = False
    with selectors.DefaultSelector() as selector:
        for end in others:
            selector.register(end, selectors.EVENT_READ)
        while True:
            wait = max(due[0][0] - time.monotonic(), 0) if due else None
            for key, _ in selector.select(wait):
                end = client if key.fileobj is client else server
                try:
                    data = end.recv(_CHUNK)
                except ConnectionError:
                    return
                if not data:
                    return
                if end is client:
                    asked = True
                    yield False, reader.read(data)
                elif asked:
                    asked = False
                    yield True, []
                due.append((time.monotonic() + delay, others[end], data))
            while due and due[0][0] <= time.monotonic():
                _, end, data = due.popleft()
                try:
                    end.sendall(data)
                except ConnectionError:
                    return


class _QueryReader:
    """Reads what a client sends, in which only the first message has no type."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False

    def read(self, data: bytes) -> list[str]:
        """Take more of it, and return the queries that are complete."""
        self._buffer += data
        queries: list[str] = []
        while True:
            skip = int(self._started)
            if len(self._buffer) < skip + 4:
                return queries
            (length,) = struct.unpack("!I", self._buffer[skip : skip + 4])
            if len(self._buffer) < skip + length:
                return queries
            message, self._buffer = self._buffer[: skip + length], self._buffer[skip + length :]
            if self._started and message[:1] == b"Q":
                queries.append(message[5:-1].decode())
            self._started = True


@contextmanager
def remote(url: URL, delay: float) -> Iterator[URL]:
    """Yield the URL through a wire with this delay, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.wire", str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        given, told = process.stdin, process.stdout
        if given is None or told is None:
            raise RuntimeError("the process has no pipes")
        with given:
            given.write(url.render_as_string(hide_password=False) + "\n")
            given.flush()
            yield make_url(told.readline().strip())


def main() -> None:
    """Carry what comes until the input ends; the URL is read from it, and the new one printed."""
    with Wire(make_url(sys.stdin.readline().strip()), delay=float(sys.argv[1])) as wire:
        sys.stdout.write(wire.url.render_as_string(hide_password=False) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
