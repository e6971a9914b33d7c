"""Organizations and sets of tests over HTTP, and what the API says of itself."""

import json
import uuid
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import sessionmaker
from tests.fixtures.api_app import create_app
from tests.fixtures.api_site import Member, Site, new_member, new_site
from tests.fixtures.worlds import tear_down_wall

from assay.config import ApiPolicy, Settings
from assay.models import Base
from tenantry import IsolationNotEnforcedError, create_tenant_engine
from tenantry.testing import Database

CSV = "prompt,expected\n" + "".join(f"What is {n}+1?,{n + 1}\n" for n in range(5))
JSONL = '{"prompt": "What is 1+1?", "expected": "2"}\n'


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running API with small limits."""
    limits = {
        "ASSAY_LARGEST_BODY": "4096",
        "ASSAY_LARGEST_IMPORT": "65536",
        "ASSAY_MOST_TESTS": "100",
    }
    with new_site(tenantry_database, tmp_path_factory.mktemp("site"), **limits) as site:
        yield site


@pytest.fixture
def member(site: Site) -> Member:
    """Return a member of an organization of the test's own."""
    return new_member(site.engine, uuid.uuid4().hex)


def create(site: Site, member: Member, name: str) -> httpx2.Response:
    """Create a set."""
    return site.http.post("/test_sets", json={"name": name}, headers=member.headers)


def names(site: Site, member: Member) -> list[str]:
    """Return the names of all sets, read page by page of two."""
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = site.http.get(
            "/test_sets", params={"size": "2", **after}, headers=member.headers
        ).json()
        assert 1 <= len(page["items"]) <= 2
        found += [each["name"] for each in page["items"]]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


def send(site: Site, member: Member, content: str, kind: str, **query: str) -> httpx2.Response:
    """Import a file."""
    return site.http.post(
        "/test_sets/import",
        params={"name": "imported", **query},
        content=content.encode(),
        headers=member.headers | {"Content-Type": kind},
    )


def test_pages_hold_every_set_once_oldest_first(site: Site, member: Member) -> None:
    """Pages follow one another by key: none is left out, none comes twice, none is foreign."""
    created = [f"set {number}" for number in range(5)]
    for name in created:
        assert create(site, member, name).status_code == 201
    assert names(site, member)[2:] == created


def test_set_is_changed_in_part_and_deleted(site: Site, member: Member) -> None:
    """What a change leaves out stays; what is deleted is not there any more."""
    made = create(site, member, "  before ").json()
    assert made["name"] == "before"
    path = f"/test_sets/{made['id']}"
    changed = site.http.patch(path, json={"description": "new"}, headers=member.headers).json()
    assert (changed["name"], changed["description"]) == ("before", "new")
    assert changed["updated_at"] > changed["created_at"]
    assert site.http.get(path, headers=member.headers).json() == changed
    assert site.http.delete(path, headers=member.headers).status_code == 204
    assert site.http.get(path, headers=member.headers).status_code == 404


def test_name_is_taken_within_the_organization_alone(site: Site, member: Member) -> None:
    """A second set of a name is a conflict; another organization's name tells nothing."""
    other = new_member(site.engine, uuid.uuid4().hex)
    assert create(site, other, "same").status_code == 201
    assert create(site, member, "same").status_code == 201
    again = create(site, member, "same")
    assert again.status_code == 409
    assert again.json()["detail"] == "the organization already has a set of tests named 'same'"


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a", "organization_id": "0b1f5d0e-8f5a-4c5e-9a39-6c1f6a6c2a10"},
        {"name": "a", "id": "0b1f5d0e-8f5a-4c5e-9a39-6c1f6a6c2a10"},
        {"name": " "},
        {"name": "nul \x00"},
        {"name": "half \ud800"},
        {"name": "a", "description": "nul \x00"},
        {"name": "x" * 201},
        {"name": 1},
        {},
        [],
    ],
)
def test_input_that_is_none_is_refused(site: Site, member: Member, body: object) -> None:
    """Unknown fields, a tenant among them, and text that cannot be stored are 422."""
    response = site.http.post(
        "/test_sets",
        content=json.dumps(body),
        headers=member.headers | {"Content-Type": "application/json"},
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert "organization_id" not in response.text or "organization_id" in str(body)


@pytest.mark.parametrize(
    "query",
    [{"size": "0"}, {"size": "201"}, {"after": "x"}, {"after": "MjAyNg=="}, {"organization": "x"}],
    ids=str,
)
def test_page_that_is_none_is_refused(site: Site, member: Member, query: dict[str, str]) -> None:
    """A size out of bounds, a mark that no page gave and an unknown parameter are 422."""
    response = site.http.get("/test_sets", params=query, headers=member.headers)
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "tests"),
    [(CSV, "text/csv; charset=utf-8", 5), (JSONL, "application/jsonl", 1)],
)
def test_file_becomes_a_set(
    site: Site, member: Member, content: str, kind: str, tests: int
) -> None:
    """A file of each format is imported as a set of its organization."""
    response = send(site, member, content, kind)
    assert response.status_code == 201, response.text
    assert response.json()["tests"] == tests
    assert names(site, member)[-1] == "imported"


@pytest.mark.parametrize(
    ("content", "kind", "query", "status"),
    [
        ("", "text/csv", {}, 422),
        ("prompt,expected\na,b\nc\n", "text/csv", {}, 422),
        ("q,a\n1,2\n", "text/csv", {}, 422),
        (CSV, "text/plain", {}, 415),
        (CSV, "text/csv", {"name": ""}, 422),
        (CSV, "text/csv", {"organization_id": "x"}, 422),
        ("prompt,expected\n" + "a,b\n" * 101, "text/csv", {}, 413),
        ("prompt,expected\n" + "a,b\n" * 20_000, "text/csv", {}, 413),
    ],
    ids=["empty", "broken", "columns", "format", "name", "unknown", "rows", "bytes"],
)
def test_file_that_is_none_leaves_nothing(
    site: Site, member: Member, content: str, kind: str, query: dict[str, str], status: int
) -> None:
    """A broken, foreign or too long file is an error, and nothing of it is stored."""
    response = send(site, member, content, kind, **query)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "imported" not in names(site, member)


def test_body_is_bounded_as_it_streams(site: Site, member: Member) -> None:
    """A body that does not say its length is cut off at the limit, a longer one before it."""

    def endless() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(64):
            yield b"x" * 1024

    headers = member.headers | {"Content-Type": "application/json"}
    for content in (endless(), b"x" * 8192):
        response = site.http.post("/test_sets", content=content, headers=headers)
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"


def test_import_alone_may_be_long(site: Site) -> None:
    """At its address no other method is read further than any: JSON is parsed before the token."""
    headers = {"Content-Type": "application/json"}
    content = b"[" + b"1," * 4096 + b"1]"
    answer = site.http.patch("/test_sets/import", content=content, headers=headers)
    assert answer.status_code == 413


def test_request_is_known_by_its_id(site: Site, member: Member) -> None:
    """A client's id comes back, if it can be nothing else; without one the API makes one."""
    given = site.http.get("/healthz", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>"):
        made = site.http.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert uuid.UUID(made).hex == made


def test_request_that_fails_is_known_by_its_id(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the application's own is a 500 that tells its id, and nothing of the inside."""
    app = create_app(Settings(api=ApiPolicy()), sessions=sessionmaker(site.engine))

    @app.get("/fails")
    def fail() -> None:
        raise RuntimeError("secret")

    response = TestClient(app).get("/fails", headers={"X-Request-ID": "abc-2"})
    assert response.json() == {"title": "Internal Server Error", "status": 500}
    assert response.headers["x-request-id"] == "abc-2"
    assert "request abc-2 failed" in caplog.text


def test_answer_of_a_tenant_is_not_cached(site: Site, member: Member) -> None:
    """What a token brought is for nobody else on the way, its errors included."""
    for path in ("/test_sets", f"/test_sets/{uuid.uuid4()}"):
        response = site.http.get(path, headers=member.headers)
        assert response.headers["cache-control"] == "no-store"


def test_metrics_have_templates_and_no_tenant(site: Site, member: Member) -> None:
    """Requests are counted by route and status; no id and no path of a client's is a label."""
    site.http.get(f"/test_sets/{member.ids['set_id']}", headers=member.headers)
    site.http.get("/no/such/path")
    site.http.request("BREW", "/healthz")
    text = site.http.get("/metrics").text
    line = 'assay_requests_total{method="GET",route="/test_sets/{set_id}",status="200"}'
    assert line in text
    assert 'method="GET",route="none",status="404"' in text
    for label in (str(member.organization_id), str(member.ids["set_id"]), "such", "BREW"):
        assert label not in text


def test_ready_says_what_keeps_tenants_apart(site: Site) -> None:
    """Database, broker and wall are looked at, on real servers."""
    response = site.http.get("/readyz")
    assert (response.status_code, response.json()) == (
        200,
        {"ready": True, "database": "ok", "broker": "ok", "isolation": "database"},
    )


def test_documentation_asks_nobody_else(site: Site) -> None:
    """The page of the documentation and what it loads come from the API itself."""
    page = site.http.get("/docs").text
    assert "cdn" not in page.lower()
    assert "http" not in page.replace("http-equiv", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert f"/docs/assets/{asset}" in page
        assert site.http.get(f"/docs/assets/{asset}").status_code == 200


def test_openapi_tells_of_every_error(site: Site) -> None:
    """Each route that needs a token says so, with its problems; every model has an example."""
    document = site.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path in {"/healthz", "/readyz"}:
                continue
            assert operation["security"] == [{"token": []}]
            assert {"401", "422", "429", "503"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
    for name in ("SetOut", "SetCreate", "SetChange", "OrganizationOut", "ImportedOut"):
        assert document["components"]["schemas"][name]["examples"]


def test_api_does_not_start_without_a_wall(fresh_database: Database) -> None:
    """In mode `database` it refuses; in mode `auto` it serves by filters, and says so."""
    tear_down_wall(fresh_database)

    def served(mode: str) -> TestClient:
        engine = create_tenant_engine(
            fresh_database.app_url,
            mode=mode,  # type: ignore[arg-type]
            metadata=Base.metadata,
        )
        settings = Settings(api=ApiPolicy())
        return TestClient(create_app(settings, sessions=sessionmaker(engine)))

    with pytest.raises(IsolationNotEnforcedError), served("database"):
        pass
    engine = create_tenant_engine(fresh_database.app_url, metadata=Base.metadata)
    first, second = (new_member(engine, name) for name in ("first", "second"))
    engine.dispose()
    with served("auto") as client:
        assert client.get("/readyz").json()["isolation"] == "filters"
        listed = client.get("/test_sets", headers=first.headers).json()["items"]
        assert {each["name"] for each in listed} == {"first's set", "first's used set"}
        path = f"/test_sets/{second.ids['set_id']}"
        for method in ("GET", "DELETE"):
            assert client.request(method, path, headers=first.headers).status_code == 404
