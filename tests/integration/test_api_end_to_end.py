"""Two organizations use the API at once, with a real worker, broker and application under test."""

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.fixtures.api_site import Member, new_member, serving
from tests.fixtures.assay_workers import ROOT, Unhurried, environment, working

from assay.demo_server import Question, planned
from assay.demo_server import serving as answering
from assay.models import Base, Metric, Verdict
from tenantry import create_tenant_engine
from tenantry.testing import Database, Server

DATA = Path(os.environ.get("ASSAY_DATA") or ROOT.parent / "shared" / "data")
FILES = {"gsm8k_test.jsonl": "application/jsonl", "truthfulqa.csv": "text/csv"}
FINAL = {"completed", "partial", "failed", "cancelled"}

# Seconds that the application is given, and more than that, which it sometimes takes.
PATIENCE, SLOWNESS = 4, 6


@dataclass(frozen=True, slots=True)
class Place:
    """A running API with a worker, and the application whose answers are judged."""

    http: httpx2.Client
    application: Unhurried
    url: str
    members: tuple[Member, Member]


@dataclass(frozen=True, slots=True)
class Party:
    """A member who uses the API, and another organization's, who tries to use it too."""

    place: Place
    member: Member
    other: Member
    rows: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Ask as the member, after the other has been told that there is no such thing."""
        path = path.format_map(self.rows)
        if any(id_ in path for id_ in self.rows.values()):
            self.refuse(method, path, **options)
        return self.ask_alone(method, path, status, **options)

    def ask_alone(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Ask as the member."""
        given = self.member.headers | options.pop("headers", {})
        answer = self.place.http.request(method, path, headers=given, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        return answer.json()

    def refuse(self, method: str, path: str, **options: Any) -> None:
        """See the other organization told what it is told of an id that nobody has."""
        nobody = path
        for id_ in self.rows.values():
            nobody = nobody.replace(id_, str(uuid.uuid4()))
        given = self.other.headers | options.pop("headers", {})
        answers = [
            self.place.http.request(method, each, headers=given, **options)
            for each in (path, nobody)
        ]
        assert answers[0].status_code == 404, f"{method} {path}: {answers[0].text}"
        assert answers[0].content == answers[1].content

    def pages(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield all of a list, page by page."""
        after: dict[str, str] = {}
        while True:
            page = self.ask("GET", path, params={"size": "200", **query, **after})
            yield from page["items"]
            if page["next"] is None:
                return
            after = {"after": page["next"]}

    def prepare(self, name: str, content: bytes, media_type: str) -> list[Question]:
        """Import a file and configure a run of it; return what the application will be asked."""
        imported = self.ask(
            "POST",
            "/test_sets/import",
            201,
            params={"name": name},
            content=content,
            headers={"Content-Type": media_type},
        )
        self.rows["set"] = imported["id"]
        questions = [
            Question(test["prompt"], test["expected"], Metric(test["metric"]))
            for test in self.pages("/test_sets/{set}/tests")
        ]
        assert len(questions) == imported["tests"]
        path = f"/{self.member.organization_id}"
        self.place.application.learn(path, questions)
        new = {"name": name, "url": f"{self.place.url}{path}", "timeout_seconds": PATIENCE}
        self.rows["endpoint"] = self.ask("POST", "/endpoints", 201, json=new)["id"]
        new = {"name": name, "test_set_id": imported["id"], "endpoint_id": self.rows["endpoint"]}
        self.rows["configuration"] = self.ask("POST", "/test_configurations", 201, json=new)["id"]
        return questions

    def execute(self) -> None:
        """Launch a run, twice with one key, and wait until its task has sent out the tests."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/test_configurations/{configuration}/execute"
        tasks = {self.ask("POST", path, 202, headers=key)["task_id"] for _ in range(2)}
        assert len(tasks) == 1
        (self.rows["task"],) = tasks
        task = self.follow("/tasks/{task}", lambda found: found["finished_at"] is not None)
        assert task["status"] == "success", task
        self.rows["run"] = task["result"]["run_id"]

    def follow(self, path: str, done: Callable[[Any], bool], seconds: float = 300) -> Any:
        """Ask again and again, until it is done."""
        deadline = time.monotonic() + seconds
        found = self.ask("GET", path)
        while not done(found):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {found}"
            time.sleep(0.3)
            found = self.ask_alone("GET", path.format_map(self.rows))
        return found

    def lists(self) -> str:
        """Return all that the other organization's lists hold."""
        return "".join(
            self.place.http.get(f"/{name}?size=200", headers=self.other.headers).text
            for name in ("test_sets", "endpoints", "test_configurations", "test_runs", "tokens")
        )


@pytest.fixture(scope="module")
def place(
    tenantry_server: Server, tenantry_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Return an API, a worker on the same broker, and two organizations, on one database."""
    folder = tmp_path_factory.mktemp("place")
    database: Database = tenantry_server.create_database(template=tenantry_template)
    environ = environment(
        lambda login: tenantry_server.url(login, database.name),
        TENANTRY_MODE="database",
        ASSAY_REQUESTS_PER_TOKEN="100000/minute",
    )
    engine = create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)
    members = (new_member(engine, "first"), new_member(engine, "second"))
    engine.dispose()
    application = Unhurried(slowness=SLOWNESS)
    with (
        answering(application) as url,
        working(environ, folder),
        serving(environ, folder) as http,
    ):
        yield Place(http, application, url, members)
    database.drop()


def parties(place: Place) -> tuple[Party, Party]:
    """Return both members, each with the other as its opponent."""
    first, second = place.members
    return Party(place, first, second), Party(place, second, first)


def sample(number: int, word: str) -> bytes:
    """Return a file of so many tests."""
    rows = ({"prompt": f"{word} {n}?", "expected": f"{word}-{n}"} for n in range(number))
    return "".join(f"{json.dumps(row | {'metric': 'exact'})}\n" for row in rows).encode()


def run_all(party: Party, name: str, content: bytes, media_type: str) -> int:
    """Import, execute, follow and read everything; return how many results there are."""
    questions = party.prepare(name, content, media_type)
    party.execute()
    run = party.follow("/test_runs/{run}", lambda found: found["status"] in FINAL)
    wanted = planned(questions)
    assert run["status"] == "partial"
    assert run["summary"] == {
        "passed": wanted[Verdict.PASS],
        "failed": wanted[Verdict.FAIL],
        "errors": wanted[Verdict.ERROR],
        "missing": 0,
    }
    results = list(party.pages("/test_runs/{run}/results"))
    assert Counter(Verdict(each["verdict"]) for each in results) == wanted
    assert len({each["test_id"] for each in results}) == len(questions)
    assert Counter(each["prompt"] for each in results) == Counter(q.prompt for q in questions)
    failed = party.pages("/test_runs/{run}/results", verdict="fail")
    assert sum(1 for _ in failed) == wanted[Verdict.FAIL]
    for action in ("/tasks/{task}/cancel", "/test_runs/{run}/cancel"):
        party.ask("POST", action, 409)
    seen = party.lists()
    assert not [id_ for id_ in party.rows.values() if id_ in seen]
    return len(results)


@pytest.mark.timeout(400)
def test_both_organizations_run_their_tests_at_once(place: Place) -> None:
    """Every count is the one that was served, to each its own; the other is told 404 throughout.

    With the published sets, where they are next to the project; otherwise with a sample.
    """
    files = (
        [(name, (DATA / name).read_bytes(), kind) for name, kind in FILES.items()]
        if DATA.is_dir()
        else [(word, sample(120, word), "application/jsonl") for word in ("one", "two")]
    )
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_all, party, *file)
            for party, file in zip(parties(place), files, strict=True)
        ]
        numbers = [run.result() for run in runs]
    assert sum(numbers) == (2136 if DATA.is_dir() else 240)
    assert place.application.strange == []


def test_run_is_cancelled_in_the_middle(place: Place) -> None:
    """Cancelled with results and without all of them, it stays so; the other could not do it."""
    party, bystander = parties(place)
    party.prepare("cancelled", sample(600, "cancelled"), "application/jsonl")
    place.application.pause = 0.2
    party.execute()
    begun = party.follow("/test_runs/{run}", lambda found: found["summary"]["missing"] < 600)
    assert begun["status"] == "running"
    for path in ("/tasks/{task}/cancel", "/test_runs/{run}/cancel"):
        party.refuse("POST", path.format_map(party.rows))
    assert party.ask("GET", "/test_runs/{run}")["status"] == "running"
    assert party.ask("POST", "/test_runs/{run}/cancel")["status"] == "cancelled"
    ended = party.ask("GET", "/test_runs/{run}")
    assert ended["status"] == "cancelled"
    assert 0 < sum(ended["summary"].values()) < 600
    place.application.pause = 0
    # Another run, behind what was sent out for this one, ends as if nothing had been.
    questions = bystander.prepare("after", sample(20, "after"), "application/jsonl")
    bystander.execute()
    after = bystander.follow("/test_runs/{run}", lambda found: found["status"] in FINAL)
    assert after["summary"]["passed"] == planned(questions)[Verdict.PASS]
    assert party.ask("GET", "/test_runs/{run}") == ended
    party.ask("POST", "/test_runs/{run}/cancel", 409)
