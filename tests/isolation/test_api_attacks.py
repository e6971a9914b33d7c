"""One organization attacks another's rows where the matrix of routes does not reach.

Marks of pages, filters, ids in bodies, keys, spellings of ids and paths, methods and headers: what
is another's gives the bytes that an id gives which nobody has.
"""

import base64
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import sessionmaker
from tests.fixtures.api_app import create_app
from tests.fixtures.api_site import Member, Site, new_member, new_site
from tests.fixtures.worlds import tear_down_wall
from tests.isolation.test_api_matrix import MATRIX, filled, shown

from assay.config import ApiPolicy, Settings
from assay.models import Base
from tenantry import create_tenant_engine
from tenantry.testing import Database

Http = httpx2.Client | TestClient

LISTS = sorted(
    path
    for path, operations in create_app().openapi()["paths"].items()
    if any(each["name"] == "after" for each in operations.get("get", {}).get("parameters", ()))
)
"""What comes in pages, of whatever routes there are."""


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return an API with an organization that attacks, `second`, and its victim, `first`."""
    with new_site(tenantry_database, tmp_path_factory.mktemp("site")) as site:
        yield site


def names_of(victim: Member) -> list[str]:
    """Return what no answer to anybody else may hold."""
    return [str(each) for each in (victim.organization_id, victim.user_id, *victim.ids.values())]


def assert_nothing_of(victim: Member, answer: httpx2.Response) -> None:
    """Fail if the answer holds an id of the victim's, in whatever spelling."""
    text = answer.text.lower().replace("-", "")
    assert not [id_ for id_ in names_of(victim) if id_.replace("-", "") in text], answer.text


def mark(moment: datetime, id_: uuid.UUID) -> str:
    """Return what a page would give as `next` after such a row."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()} {id_.hex}".encode()).decode()


def check_marks(http: Http, attacker: Member, victim: Member) -> None:
    """The victim's marks, real and made up, lead the attacker to rows of their own alone."""
    for template in LISTS:
        path = template.format_map(attacker.ids)
        real = http.get(
            template.format_map(victim.ids), params={"size": "1"}, headers=victim.headers
        ).json()["next"]
        made_up = {mark(datetime(2000, 1, 1, tzinfo=UTC), id_) for id_ in victim.ids.values()}
        for after in (made_up | {"0", real}) - {None}:
            page = http.get(path, params={"after": after}, headers=attacker.headers)
            # What another list's pages give is none of this one's.
            assert page.status_code in ({200} if after == real else {200, 422})
            assert_nothing_of(victim, page)


def check_same_as_unknown(
    ask: Callable[[uuid.UUID], httpx2.Response], victim: Member, kind: str
) -> httpx2.Response:
    """The victim's id gives what an unknown one gives, byte for byte but for the id itself."""
    nobody = uuid.uuid4()
    answers = [(id_, ask(id_)) for id_ in (victim.ids[kind], nobody)]

    def told(id_: uuid.UUID, answer: httpx2.Response) -> str:
        text = repr(shown(answer)).lower()
        return text.replace(str(id_), "…").replace(id_.hex, "…")

    assert told(*answers[0]) == told(*answers[1])
    return answers[0][1]


def test_marks_of_another_lead_nowhere(site: Site) -> None:
    """No list can be entered by another organization's place in it."""
    assert len(LISTS) >= 8
    check_marks(site.http, site.second, site.first)


def test_without_the_wall_marks_lead_to_anothers_rows(fresh_database: Database) -> None:
    """The mutation: with row security off beneath the running API the same attack succeeds."""
    engine = create_tenant_engine(fresh_database.app_url, mode="database", metadata=Base.metadata)
    victim, attacker = (new_member(engine, name) for name in ("victim", "attacker"))
    app = create_app(Settings(api=ApiPolicy()), sessions=sessionmaker(engine))
    with TestClient(app) as http:
        check_marks(http, attacker, victim)
        tear_down_wall(fresh_database)
        with pytest.raises(AssertionError):
            check_marks(http, attacker, victim)


@pytest.mark.parametrize("key", sorted(MATRIX), ids=" ".join)
def test_nothing_but_the_token_names_the_organization(site: Site, key: tuple[str, str]) -> None:
    """Headers, cookies and parameters that name the victim change nothing of what is shown."""
    method, template = key
    victim, attacker = site.first, site.second
    organization = str(victim.organization_id)
    # With ids that nobody has, nothing is deleted that other tests need.
    nobody = dict.fromkeys(attacker.ids, uuid.uuid4())
    options = filled(MATRIX[key].options, {"new": uuid.uuid4().hex, **attacker.ids})
    headers = options.pop("headers", {}) | attacker.headers
    claims = {
        "X-Organization-ID": organization,
        "X-Tenant": organization,
        "X-Forwarded-User": str(victim.user_id),
        "X-Original-URL": f"/test_sets/{victim.ids['set_id']}",
        "X-HTTP-Method-Override": "DELETE",
        "Forwarded": f"for={organization}",
        "Cookie": f"organization_id={organization}; token={victim.token}",
    }
    for extra in ({}, {"organization_id": organization, "user_id": str(victim.user_id)}):
        given = options | {"params": options.get("params", {}) | extra}
        path = template.format_map(nobody)
        answer = site.http.request(method, path, headers=headers | claims, **given)
        assert answer.status_code in {MATRIX[key].status, 404, 409, 422}
        assert_nothing_of(victim, answer)
    for id_ in ("set_id", "endpoint_id"):
        shown_to_victim = site.http.get(
            f"/{'test_sets' if id_ == 'set_id' else 'endpoints'}/{victim.ids[id_]}",
            headers=victim.headers,
        )
        assert shown_to_victim.status_code == 200


@pytest.mark.parametrize(
    "key", sorted(key for key, entry in MATRIX.items() if "json" in entry.options), ids=" ".join
)
def test_body_that_names_an_organization_is_refused(site: Site, key: tuple[str, str]) -> None:
    """A row cannot be filed under another organization, or moved there, or given an id."""
    method, template = key
    attacker = site.second
    options = filled(MATRIX[key].options, {"new": uuid.uuid4().hex, **attacker.ids})
    for extra in ({"organization_id": str(site.first.organization_id)}, {"id": str(uuid.uuid4())}):
        answer = site.http.request(
            method,
            template.format_map(attacker.ids),
            headers=attacker.headers,
            json=options["json"] | extra,
        )
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(("column", "kind"), [("test_set_id", "set_id"), ("endpoint_id",) * 2])
def test_configuration_cannot_be_pointed_at_anothers_row(
    site: Site, column: str, kind: str
) -> None:
    """Neither a new configuration nor a changed one names another's set or endpoint."""
    attacker = site.second
    own = {
        "test_set_id": str(attacker.ids["set_id"]),
        "endpoint_id": str(attacker.ids["endpoint_id"]),
    }

    def create(id_: uuid.UUID) -> httpx2.Response:
        new = {"name": uuid.uuid4().hex} | own | {column: str(id_)}
        return site.http.post("/test_configurations", json=new, headers=attacker.headers)

    def change(id_: uuid.UUID) -> httpx2.Response:
        path = f"/test_configurations/{attacker.ids['configuration_id']}"
        return site.http.patch(path, json={column: str(id_)}, headers=attacker.headers)

    def repeat(id_: uuid.UUID) -> httpx2.Response:
        text = f'{{"name": "x", "{column}": "{own[column]}", "{column}": "{id_}"'
        rest = "".join(f', "{name}": "{own[name]}"' for name in own if name != column)
        headers = attacker.headers | {"Content-Type": "application/json"}
        return site.http.post("/test_configurations", content=f"{text}{rest}}}", headers=headers)

    for ask in (create, change, repeat):
        assert check_same_as_unknown(ask, site.first, kind).status_code == 422


def test_path_of_two_ids_is_not_mixed(site: Site) -> None:
    """Another's test is not reached through one's own set, nor one's own through another's set."""
    attacker, victim = site.second, site.first
    for method, change in (("GET", None), ("PATCH", {"prompt": "mine"}), ("DELETE", None)):

        def through_own(
            id_: uuid.UUID, method: str = method, change: Any = change
        ) -> httpx2.Response:
            path = f"/test_sets/{attacker.ids['set_id']}/tests/{id_}"
            return site.http.request(method, path, json=change, headers=attacker.headers)

        def through_anothers(
            id_: uuid.UUID, method: str = method, change: Any = change
        ) -> httpx2.Response:
            path = f"/test_sets/{id_}/tests/{attacker.ids['test_id']}"
            return site.http.request(method, path, json=change, headers=attacker.headers)

        assert check_same_as_unknown(through_own, victim, "test_id").status_code == 404
        assert check_same_as_unknown(through_anothers, victim, "set_id").status_code == 404


def test_same_names_and_keys_do_not_meet(site: Site) -> None:
    """The victim's Idempotency-Key launches the attacker's own task, their name one's own set."""
    victim, attacker = site.first, site.second
    key = {"Idempotency-Key": uuid.uuid4().hex}

    def execute(member: Member, configuration: uuid.UUID) -> httpx2.Response:
        path = f"/test_configurations/{configuration}/execute"
        return site.http.post(path, headers=member.headers | key)

    theirs = execute(victim, victim.ids["configuration_id"]).json()["task_id"]
    own = execute(attacker, attacker.ids["configuration_id"]).json()["task_id"]
    assert theirs != own
    foreign = check_same_as_unknown(lambda id_: execute(attacker, id_), victim, "configuration_id")
    # The key is spent, for this organization.
    assert foreign.status_code == 422
    path = f"/test_sets/{victim.ids['set_id']}"
    before = site.http.get(path, headers=victim.headers).json()
    imported = site.http.post(
        "/test_sets/import",
        params={"name": before["name"]},
        content=b"prompt,expected\nplanted,yes\n",
        headers=attacker.headers | {"Content-Type": "text/csv"},
    )
    assert imported.status_code == 201
    assert site.http.get(path, headers=victim.headers).json() == before
    tests = site.http.get(f"{path}/tests", headers=victim.headers)
    assert "planted" not in tests.text


SPELLINGS: dict[str, Callable[[uuid.UUID], str]] = {
    "capitals": lambda id_: str(id_).upper(),
    "without hyphens": lambda id_: id_.hex,
    "URN": lambda id_: f"urn:uuid:{id_}",
    "braces": lambda id_: f"%7B{id_}%7D",
    "slash": lambda id_: f"{id_}/",
    "two slashes": lambda id_: f"/{id_}",
    "encoded slash": lambda id_: f"%2F{id_}",
    "back and forth": lambda id_: f"{uuid.UUID(int=1)}/../{id_}",
    "encoded dots": lambda id_: f"x/%2e%2e/{id_}",
    "NUL": lambda id_: f"{id_}%00",
    "blank": lambda id_: f"%20{id_}",
    "parameter": lambda id_: f"{id_};x=1",
    "fragment": lambda id_: f"{id_}%23",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling_of_an_id_opens_nothing(site: Site, name: str) -> None:
    """However another's id is written, it is not found, or is no id."""
    for method in ("GET", "PATCH", "DELETE"):

        def ask(id_: uuid.UUID, method: str = method) -> httpx2.Response:
            change = {"description": "mine"} if method == "PATCH" else None
            path = f"/test_sets/{SPELLINGS[name](id_)}"
            return site.http.request(
                method, path, json=change, headers=site.second.headers, follow_redirects=True
            )

        answer = check_same_as_unknown(ask, site.first, "set_id")
        assert answer.status_code in {404, 405, 422}
    own = site.http.get(
        f"/test_sets/{str(site.second.ids['set_id']).upper()}", headers=site.second.headers
    )
    assert own.json()["id"] == str(site.second.ids["set_id"])


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE", "BREW", "get"])
@pytest.mark.parametrize(
    "override", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]
)
def test_method_opens_nothing(site: Site, method: str, override: str) -> None:
    """A method that no route has tells nothing of a row, and no header makes it another one."""
    for wanted in ("GET", "DELETE"):

        def ask(id_: uuid.UUID, wanted: str = wanted) -> httpx2.Response:
            headers = site.second.headers | {override: wanted}
            return site.http.request(method, f"/test_sets/{id_}", headers=headers)

        check_same_as_unknown(ask, site.first, "set_id")
    path = f"/test_sets/{site.second.ids['set_id']}"
    site.http.request(method, path, headers=site.second.headers | {override: "DELETE"})
    assert site.http.get(path, headers=site.second.headers).status_code == 200


def test_two_credentials_are_not_mixed(site: Site) -> None:
    """Of two headers one counts, for all of the request; two credentials in one are none."""
    mine, theirs = (f"Bearer {member.token}" for member in (site.second, site.first))
    both = [("Authorization", mine), ("Authorization", theirs)]
    shown_sets = site.http.get("/test_sets", headers=both)
    assert shown_sets.status_code == 200
    assert_nothing_of(site.first, shown_sets)
    foreign = site.http.get(f"/test_sets/{site.first.ids['set_id']}", headers=both)
    assert foreign.status_code == 404
    for joined in (f"{mine}, {theirs}", f"{mine} {theirs}", f"{mine}\t{site.first.token}"):
        answer = site.http.get("/test_sets", headers={"Authorization": joined})
        assert answer.status_code == 401


def test_caches_and_ranges_open_nothing(site: Site) -> None:
    """Conditions are about what is shown: another's row has none, and one's own is not to keep."""
    conditions = {
        "If-None-Match": "*",
        "If-Match": "*",
        "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT",
        "Range": "bytes=0-1",
        "Cache-Control": "only-if-cached",
    }

    def ask(id_: uuid.UUID) -> httpx2.Response:
        return site.http.get(f"/test_sets/{id_}", headers=site.second.headers | conditions)

    assert check_same_as_unknown(ask, site.first, "set_id").status_code == 404
    own = ask(site.second.ids["set_id"])
    assert own.status_code == 200
    assert own.headers["cache-control"] == "no-store"
    assert not {"etag", "last-modified", "age"} & own.headers.keys()
