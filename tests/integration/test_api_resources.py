"""Users, tests, endpoints, configurations and tokens over HTTP: what the matrix does not show."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker
from tests.fixtures.api_site import Member, Site, new_member, new_site

from assay.models import ApiToken, RunStatus, Test, TestResult, TestRun, Verdict
from assay.services.users import create_user
from tenantry import tenant_scope
from tenantry.testing import Database

URL = "https://bot.example.org/ask"


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running API that may name one private network."""
    allowed = {"ASSAY_HTTP_HOSTS": "10.1.2.3", "ASSAY_ALLOWED_NETWORKS": "10.1.0.0/16"}
    with new_site(tenantry_database, tmp_path_factory.mktemp("site"), **allowed) as site:
        yield site


@pytest.fixture
def member(site: Site) -> Member:
    """Return a member of an organization of the test's own."""
    return new_member(site.engine, uuid.uuid4().hex)


class As:
    """Requests of a member; each expects a status and returns what was answered."""

    def __init__(self, site: Site, member: Member) -> None:
        """Keep whose requests they are."""
        self._site = site
        self._member = member

    def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Ask, and return the answer's JSON."""
        response: httpx2.Response = self._site.http.request(
            method, path, headers=self._member.headers, **options
        )
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def listed(self, path: str, size: int = 200) -> list[Any]:
        """Return all of a list, in pages of this size."""
        found: list[Any] = []
        after: dict[str, str] = {}
        while True:
            page = self.ask("GET", path, params={"size": str(size), **after})
            found += page["items"]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}


@pytest.fixture
def api(site: Site, member: Member) -> As:
    """Return the member's requests."""
    return As(site, member)


def new_test(prompt: str, **fields: Any) -> dict[str, Any]:
    """Return a test as it is sent."""
    return {"prompt": prompt, "expected": ["yes"], **fields}


def test_tests_keep_their_order_page_by_page(api: As) -> None:
    """Tests come at the end of their set, and pages hold each of them once, in its order."""
    set_id = api.ask("POST", "/test_sets", 201, json={"name": "ordered"})["id"]
    prompts = [f"prompt {number}" for number in range(5)]
    for prompt in prompts:
        api.ask("POST", f"/test_sets/{set_id}/tests", 201, json=new_test(prompt))
    found = api.listed(f"/test_sets/{set_id}/tests", size=2)
    assert [each["prompt"] for each in found] == prompts
    api.ask("DELETE", f"/test_sets/{set_id}/tests/{found[1]['id']}", 204)
    api.ask("POST", f"/test_sets/{set_id}/tests", 201, json=new_test("last"))
    kept = [each["prompt"] for each in api.listed(f"/test_sets/{set_id}/tests", size=2)]
    assert kept == [*prompts[:1], *prompts[2:], "last"]


def test_tests_added_at_once_have_a_place_each(api: As) -> None:
    """Eight requests that add to one set wait for one another instead of failing."""
    set_id = api.ask("POST", "/test_sets", 201, json={"name": "crowded"})["id"]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: api.ask("POST", f"/test_sets/{set_id}/tests", 201, json=new_test(str(n))),
                range(8),
            )
        )
    found = api.listed(f"/test_sets/{set_id}/tests")
    assert sorted(each["prompt"] for each in found) == [str(n) for n in range(8)]


@pytest.mark.parametrize(
    "body",
    [
        new_test("a", expected=[]),
        new_test("a", expected=["  "]),
        new_test("a", expected=["one"], metric="numeric"),
        new_test("a", expected=["("], metric="regex"),
        new_test("a", metric="guess"),
        new_test("  "),
        new_test("a", organization_id="0b1f5d0e-8f5a-4c5e-9a39-6c1f6a6c2a10"),
        new_test("a", expected="yes"),
    ],
    ids=str,
)
def test_test_that_is_none_is_refused(api: As, member: Member, body: dict[str, Any]) -> None:
    """What an import would refuse is refused, and nothing of it is stored."""
    path = f"/test_sets/{member.ids['set_id']}/tests"
    assert "line 1" not in str(api.ask("POST", path, 422, json=body))
    assert len(api.listed(path)) == 1


def test_test_is_changed_in_part(api: As, member: Member) -> None:
    """What is left out stays, null takes away what a test need not have, numbers lose grouping."""
    path = f"/test_sets/{member.ids['set_id']}/tests/{member.ids['test_id']}"
    changed = api.ask("PATCH", path, json={"category": "c", "reference": "r", "prompt": None})
    assert (changed["category"], changed["reference"]) == ("c", "r")
    assert changed["prompt"] == f"{api.ask('GET', path)['prompt']}"
    numeric = api.ask(
        "PATCH", path, json={"category": None, "expected": ["1,450.50"], "metric": "numeric"}
    )
    assert (numeric["category"], numeric["reference"]) == (None, "r")
    assert numeric["expected"] == ["1450.5"]
    api.ask("PATCH", path, 422, json={"expected": ["many"]})
    assert api.ask("GET", path) == numeric


def test_removed_test_is_kept_for_its_results(site: Site, api: As, member: Member) -> None:
    """A test that a run has a result of leaves the set alone; another one is gone."""
    for set_key, test_key, kept in (
        ("used_set_id", "used_test_id", True),
        ("set_id", "test_id", False),
    ):
        path = f"/test_sets/{member.ids[set_key]}/tests/{member.ids[test_key]}"
        api.ask("DELETE", path, 204)
        api.ask("GET", path, 404)
        api.ask("DELETE", path, 404)
        with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
            query = select(Test.id).where(Test.id == member.ids[test_key])
            assert (session.scalar(query) is not None) is kept
    results = api.listed(f"/test_runs/{member.ids['run_id']}/results")
    assert [each["verdict"] for each in results] == ["pass"]


def test_what_is_referred_to_is_not_deleted(api: As, member: Member) -> None:
    """A configuration keeps its set and its endpoint; after it they can go, and its runs stay."""
    for path in (
        f"/test_sets/{member.ids['used_set_id']}",
        f"/endpoints/{member.ids['used_endpoint_id']}",
    ):
        assert "test configuration" in api.ask("DELETE", path, 409)["detail"]
        api.ask("GET", path)
    api.ask("DELETE", f"/test_configurations/{member.ids['configuration_id']}", 204)
    api.ask("DELETE", f"/test_sets/{member.ids['used_set_id']}", 204)
    api.ask("DELETE", f"/endpoints/{member.ids['used_endpoint_id']}", 204)
    api.ask("GET", f"/test_runs/{member.ids['run_id']}")


def test_configuration_that_is_run_keeps_its_set(site: Site, api: As, member: Member) -> None:
    """Neither its set changes under a run nor does it go; its name and endpoint may change."""
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        run = TestRun(
            id=uuid.uuid4(),
            status=RunStatus.RUNNING,
            test_configuration_id=member.ids["configuration_id"],
        )
        session.add(run)
        run_id = run.id
    path = f"/test_configurations/{member.ids['configuration_id']}"
    other = {"test_set_id": str(member.ids["set_id"])}
    api.ask("PATCH", path, 409, json=other)
    api.ask("DELETE", path, 409)
    same = {"test_set_id": str(member.ids["used_set_id"]), "name": "renamed"}
    assert api.ask("PATCH", path, json=same)["name"] == "renamed"
    api.ask("POST", f"/test_runs/{run_id}/cancel")
    assert api.ask("PATCH", path, json=other)["test_set_id"] == other["test_set_id"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/endpoints", {"url": URL}),
        ("/test_configurations", {}),
        ("/test_sets", {}),
    ],
)
def test_names_are_new_to_the_organization(
    api: As, site: Site, member: Member, path: str, body: dict[str, str]
) -> None:
    """A second one of a name is a conflict, created or renamed; another organization's is free."""
    ids = member.ids
    if path == "/test_configurations":
        body = {"test_set_id": str(ids["set_id"]), "endpoint_id": str(ids["endpoint_id"])}
    api.ask("POST", path, 201, json={"name": "same", **body})
    assert "'same'" in api.ask("POST", path, 409, json={"name": "same", **body})["detail"]
    other = api.ask("POST", path, 201, json={"name": "other", **body})
    api.ask("PATCH", f"{path}/{other['id']}", 409, json={"name": "same"})
    stranger = new_member(site.engine, uuid.uuid4().hex)
    if path == "/test_configurations":
        body = {name: str(stranger.ids[name]) for name in body if name != "test_set_id"}
        body["test_set_id"] = str(stranger.ids["set_id"])
    As(site, stranger).ask("POST", path, 201, json={"name": "same", **body})


@pytest.mark.parametrize(
    "url",
    [
        "http://bot.example.org",
        "https://127.0.0.1/ask",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://10.2.0.1/",
        "https://user:password@bot.example.org/",
        "ftp://bot.example.org",
        "bot.example.org",
        "https://",
        "file:///etc/passwd",
        "https://bot.example.org\n.evil",
        "https://xn--a/",
    ],
)
def test_endpoint_that_may_not_be_called_is_refused(api: As, member: Member, url: str) -> None:
    """Neither created nor changed to: not https, with a password, or no public address."""
    api.ask("POST", "/endpoints", 422, json={"name": "n", "url": url})
    path = f"/endpoints/{member.ids['endpoint_id']}"
    api.ask("PATCH", path, 422, json={"url": url})
    assert api.ask("GET", path)["url"] == URL


def test_endpoint_that_the_operator_allows_is_taken(api: As) -> None:
    """The host and the network that the environment names may be called, even without TLS."""
    made = api.ask(
        "POST", "/endpoints", 201, json={"name": "own", "url": "HTTP://10.1.2.3:8080/ask"}
    )
    assert made["url"] == "http://10.1.2.3:8080/ask"
    assert made["timeout_seconds"] == 30
    path = f"/endpoints/{made['id']}"
    assert api.ask("PATCH", path, json={"timeout_seconds": 600})["timeout_seconds"] == 600
    api.ask("PATCH", path, 422, json={"timeout_seconds": 601})


def test_user_is_one_of_the_organization(api: As, member: Member) -> None:
    """A user is created once for each address; `me` is the token's own."""
    made = api.ask("POST", "/users", 201, json={"email": " grace@example.org "})
    assert (made["email"], made["name"]) == ("grace@example.org", "grace")
    assert (
        "grace@example.org"
        in api.ask("POST", "/users", 409, json={"email": made["email"]})["detail"]
    )
    for email in ("grace", "@", "a b@example.org", "x\n@example.org"):
        api.ask("POST", "/users", 422, json={"email": email})
    assert api.ask("GET", "/users/me")["id"] == str(member.user_id)
    assert [each["id"] for each in api.listed("/users", size=1)] == [
        str(member.user_id),
        made["id"],
    ]


def test_token_is_shown_once_and_revoked(site: Site, api: As, member: Member) -> None:
    """A new token works, is listed without its secret, is kept as a hash, and ends when revoked."""
    made = api.ask("POST", "/tokens", 201, json={"name": "CI", "days": 1})
    secret = made["token"]
    headers = {"Authorization": f"Bearer {secret}"}
    assert site.http.get("/users/me", headers=headers).json()["id"] == str(member.user_id)
    (listed,) = [each for each in api.listed("/tokens", size=1) if each["id"] == made["id"]]
    assert listed == {k: v for k, v in made.items() if k != "token"} | {
        "last_used_at": listed["last_used_at"]
    }
    assert listed["last_used_at"] is not None
    assert secret.startswith(listed["prefix"])
    assert len(listed["prefix"]) < 16
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        rows = session.execute(select(ApiToken.__table__)).all()
    assert secret not in str(rows)
    api.ask("DELETE", f"/tokens/{made['id']}", 204)
    assert site.http.get("/users/me", headers=headers).status_code == 401
    api.ask("POST", "/tokens", 422, json={"name": "CI", "days": 367})


def test_token_of_a_colleague_does_not_exist(site: Site, api: As, member: Member) -> None:
    """Within an organization, too, a token is its user's: not listed, and not to be revoked."""
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        colleague = create_user(session, "colleague@example.org").id
        theirs = ApiToken(
            id=uuid.uuid4(),
            user_id=colleague,
            name="theirs",
            prefix="assay_x",
            token_hash=uuid.uuid4().bytes * 2,
        )
        session.add(theirs)
        token_id = theirs.id
    assert str(token_id) not in str(api.listed("/tokens"))
    api.ask("DELETE", f"/tokens/{token_id}", 404)


def test_results_come_in_pages_and_by_verdict(site: Site, api: As, member: Member) -> None:
    """A run's results are each in one page, with what was asked; its summary counts them."""
    run_id = member.ids["run_id"]
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        for number, verdict in enumerate([Verdict.FAIL, Verdict.ERROR, Verdict.FAIL]):
            test = Test(id=uuid.uuid4(), prompt=f"p{number}", expected=["x"], metric="exact")
            session.add(test)
            session.flush()
            session.add(TestResult(test_run_id=run_id, test_id=test.id, verdict=verdict))
    path = f"/test_runs/{run_id}/results"
    found = api.listed(path, size=1)
    assert len({each["id"] for each in found}) == 4
    failed = api.ask("GET", path, params={"verdict": "fail"})["items"]
    assert {each["prompt"] for each in failed} == {"p0", "p2"}
    assert api.ask("GET", f"/test_runs/{run_id}")["summary"] == {
        "passed": 1,
        "failed": 2,
        "errors": 1,
        "missing": 0,
    }
    api.ask("GET", path, 422, params={"verdict": "maybe"})
