"""An application under test that answers as planned: mostly right, and wrong in known shares."""

import enum
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from assay.models import Metric, Verdict


class Behaviour(enum.Enum):
    """How a prompt is answered; the share of each is fixed, in thousandths of all prompts."""

    RIGHT = enum.auto()
    HESITANT = enum.auto()
    WRONG = enum.auto()
    MALFORMED = enum.auto()
    BROKEN = enum.auto()
    SLOW = enum.auto()


_SHARES: Final = {
    Behaviour.WRONG: 80,
    Behaviour.MALFORMED: 25,
    Behaviour.BROKEN: 25,
    Behaviour.HESITANT: 50,
    Behaviour.SLOW: 5,
}

_VERDICTS: Final = {
    Behaviour.RIGHT: Verdict.PASS,
    Behaviour.HESITANT: Verdict.PASS,
    Behaviour.WRONG: Verdict.FAIL,
    Behaviour.MALFORMED: Verdict.ERROR,
    Behaviour.BROKEN: Verdict.ERROR,
    Behaviour.SLOW: Verdict.ERROR,
}

_HESITATION: Final = 0.05


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, and what counts as right."""

    prompt: str
    expected: list[str]
    metric: Metric


def behaviour_for(prompt: str) -> Behaviour:
    """Return how this prompt is always answered."""
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) % 1000
    for behaviour, share in _SHARES.items():
        if place < share:
            return behaviour
        place -= share
    return Behaviour.RIGHT


def planned(questions: list[Question]) -> Counter[Verdict]:
    """Return how many of the questions come to each verdict."""
    return Counter(_VERDICTS[behaviour_for(question.prompt)] for question in questions)


@dataclass(slots=True)
class Application:
    """The questions that it can answer, by path, and those it was asked.

    Attributes:
        slowness: seconds that a slow answer takes; more than its endpoint is given.
    """

    slowness: float
    questions: dict[str, dict[str, Question]] = field(default_factory=dict)
    asked: dict[str, Counter[str]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def learn(self, path: str, questions: list[Question]) -> None:
        """Answer these questions at this path, and no others."""
        self.questions[path] = {question.prompt: question for question in questions}
        self.asked[path] = Counter()

    def answer(self, path: str, prompt: str) -> tuple[int, bytes]:
        """Return status and body, in good time or not."""
        question = self.questions.get(path, {}).get(prompt)
        if question is None:
            self.strange.append(f"{path}: {prompt[:80]}")
            return 404, b"{}"
        self.asked[path][prompt] += 1
        behaviour = behaviour_for(prompt)
        if behaviour is Behaviour.BROKEN:
            return 500, b"internal error"
        if behaviour is Behaviour.MALFORMED:
            return 200, b'{"answer": "cut of'
        if behaviour is Behaviour.SLOW:
            self.closing.wait(self.slowness)
        elif behaviour is Behaviour.HESITANT:
            time.sleep(_HESITATION)
        text = _wrong(question) if behaviour is Behaviour.WRONG else _right(question)
        return 200, json.dumps({"answer": text}).encode()


@contextmanager
def serving(application: Application) -> Iterator[str]:
    """Serve the application on 127.0.0.1 and yield its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body: Mapping[str, Any] = json.loads(self.rfile.read(length))
            status, answer = application.answer(self.path, body["prompt"])
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except ConnectionError:
                # Whoever asked did not wait for a slow answer.
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the terminal for the progress bar."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        application.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _right(question: Question) -> str:
    if question.metric is Metric.NUMERIC:
        return f"Step by step, 3 and 4 make 7. The answer is {question.expected[0]}."
    return question.expected[-1]


def _wrong(question: Question) -> str:
    if question.metric is Metric.NUMERIC:
        return f"The answer is {question.expected[0]}1."
    return "an answer that nobody expects"
