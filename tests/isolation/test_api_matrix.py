"""Every route of the API, asked by nobody, by another organization, and by a member.

The routes are those of the application's own table: one without an entry here fails the test.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from tests.fixtures.api_app import create_app
from tests.fixtures.api_site import Member, Site, new_site

from tenantry.testing import Database

CSV = b"prompt,expected\nWhat is 1+1?,2\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """How a member asks a route, and what the answer is.

    Attributes:
        status: of the answer to a member.
        ids: names of path parameters, which are names in `Member.ids` too.
        options: for httpx; `{new}` in a text is a value that was never used, `{set_id}` and its
            like are the ids of rows.
    """

    status: int = 200
    ids: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/docs/assets"),
}
"""What needs no token, and tells of no tenant."""

MATRIX: dict[tuple[str, str], Entry] = {
    ("GET", "/organizations/current"): Entry(),
    ("GET", "/test_sets"): Entry(),
    ("POST", "/test_sets"): Entry(201, options={"json": {"name": "{new}"}}),
    ("POST", "/test_sets/import"): Entry(
        201,
        options={
            "params": {"name": "{new}"},
            "content": CSV,
            "headers": {"Content-Type": "text/csv"},
        },
    ),
    ("GET", "/test_sets/{set_id}"): Entry(ids=("set_id",)),
    ("PATCH", "/test_sets/{set_id}"): Entry(
        ids=("set_id",), options={"json": {"description": "{new}"}}
    ),
    ("GET", "/endpoints"): Entry(),
    ("POST", "/endpoints"): Entry(
        201, options={"json": {"name": "{new}", "url": "https://bot.example.org/ask"}}
    ),
    ("GET", "/endpoints/{endpoint_id}"): Entry(ids=("endpoint_id",)),
    ("PATCH", "/endpoints/{endpoint_id}"): Entry(
        ids=("endpoint_id",), options={"json": {"name": "{new}"}}
    ),
    ("GET", "/users"): Entry(),
    ("POST", "/users"): Entry(201, options={"json": {"email": "{new}@example.org"}}),
    ("GET", "/users/me"): Entry(),
    ("GET", "/users/{user_id}"): Entry(ids=("user_id",)),
    ("GET", "/test_sets/{set_id}/tests"): Entry(ids=("set_id",)),
    ("POST", "/test_sets/{set_id}/tests"): Entry(
        201, ids=("set_id",), options={"json": {"prompt": "{new}", "expected": ["yes"]}}
    ),
    ("GET", "/test_sets/{set_id}/tests/{test_id}"): Entry(ids=("set_id", "test_id")),
    ("PATCH", "/test_sets/{set_id}/tests/{test_id}"): Entry(
        ids=("set_id", "test_id"), options={"json": {"prompt": "{new}"}}
    ),
    ("GET", "/test_configurations"): Entry(),
    ("POST", "/test_configurations"): Entry(
        201,
        options={
            "json": {
                "name": "{new}",
                "test_set_id": "{used_set_id}",
                "endpoint_id": "{used_endpoint_id}",
            }
        },
    ),
    ("GET", "/test_configurations/{configuration_id}"): Entry(ids=("configuration_id",)),
    ("PATCH", "/test_configurations/{configuration_id}"): Entry(
        ids=("configuration_id",), options={"json": {"name": "{new}"}}
    ),
    ("POST", "/test_configurations/{configuration_id}/execute"): Entry(
        202, ids=("configuration_id",), options={"headers": {"Idempotency-Key": "the-same"}}
    ),
    ("GET", "/tasks/{task_id}"): Entry(ids=("task_id",)),
    ("POST", "/tasks/{task_id}/cancel"): Entry(ids=("task_id",)),
    ("GET", "/test_runs"): Entry(),
    ("GET", "/test_runs/{run_id}"): Entry(ids=("run_id",)),
    ("GET", "/test_runs/{run_id}/results"): Entry(ids=("run_id",)),
    ("POST", "/test_runs/{run_id}/cancel"): Entry(ids=("run_id",)),
    ("GET", "/tokens"): Entry(),
    ("POST", "/tokens"): Entry(201, options={"json": {"name": "{new}"}}),
    ("DELETE", "/tokens/{token_id}"): Entry(204, ids=("token_id",)),
    ("DELETE", "/test_sets/{set_id}/tests/{test_id}"): Entry(204, ids=("set_id", "test_id")),
    ("DELETE", "/test_configurations/{configuration_id}"): Entry(204, ids=("configuration_id",)),
    ("DELETE", "/test_sets/{set_id}"): Entry(204, ids=("set_id",)),
    ("DELETE", "/endpoints/{endpoint_id}"): Entry(204, ids=("endpoint_id",)),
}

NAMED = sorted(key for key, entry in MATRIX.items() if entry.ids)
REFERRING = sorted(key for key, entry in MATRIX.items() if "_id}" in str(entry.options))


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return an API that the tests of this module ask."""
    with new_site(tenantry_database, tmp_path_factory.mktemp("site")) as site:
        yield site


def routes() -> set[tuple[str, str]]:
    """Return method and template of each route; HEAD comes with GET."""
    found = set()
    for route in iter_route_contexts(create_app().routes):
        methods = getattr(route, "methods", None) or {"GET"}
        found |= {(method, str(route.path)) for method in methods - {"HEAD"}}
    return found


def ask(
    site: Site,
    key: tuple[str, str],
    *,
    caller: Member | None,
    ids: dict[str, uuid.UUID],
) -> httpx2.Response:
    """Ask a route for these rows, as the caller or as nobody."""
    method, template = key
    options = filled(MATRIX[key].options, {"new": uuid.uuid4().hex, **ids})
    headers = options.pop("headers", {}) | (caller.headers if caller else {})
    return site.http.request(method, template.format_map(ids), headers=headers, **options)


def filled(value: Any, texts: Mapping[str, object]) -> Any:
    """Return the options with these texts in the places of their names in braces."""
    if isinstance(value, dict):
        return {name: filled(each, texts) for name, each in value.items()}
    return value.format_map(texts) if isinstance(value, str) else value


def shown(response: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return all of an answer that could tell anything: without its time and the request's id."""
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in {"date", "x-request-id"}
    }
    return response.status_code, response.content, headers


def test_each_route_has_an_entry() -> None:
    """A route is in the matrix, or named as open to everybody; a new one is neither."""
    assert routes() == MATRIX.keys() | OPEN
    for (_, template), entry in MATRIX.items():
        assert entry.ids == tuple(part[1:-1] for part in template.split("/") if part[:1] == "{")


@pytest.mark.parametrize("key", sorted(MATRIX), ids=" ".join)
def test_anonymous_is_refused(site: Site, key: tuple[str, str]) -> None:
    """Without a token every route gives the same 401, whether the row exists or not."""
    answers = [
        shown(ask(site, key, caller=None, ids=ids))
        for ids in (site.first.ids, dict.fromkeys(site.first.ids, uuid.uuid4()))
    ]
    assert answers[0] == answers[1]
    status, content, headers = answers[0]
    assert (status, content) == (401, b'{"title":"Unauthorized","status":401}')
    assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", NAMED, ids=" ".join)
def test_other_organizations_row_does_not_exist(site: Site, key: tuple[str, str]) -> None:
    """Another organization's id gives the bytes that an id gives which nobody has."""
    foreign = ask(site, key, caller=site.second, ids=site.first.ids)
    unknown = ask(site, key, caller=site.second, ids=dict.fromkeys(site.first.ids, uuid.uuid4()))
    assert foreign.status_code == 404
    assert shown(foreign) == shown(unknown)


@pytest.mark.parametrize("key", REFERRING, ids=" ".join)
def test_body_cannot_name_another_organizations_row(site: Site, key: tuple[str, str]) -> None:
    """Another organization's id in a body gives the bytes that an id gives which nobody has."""
    unknown = dict.fromkeys(site.first.ids, uuid.uuid4())
    for name in site.first.ids:
        if f"{{{name}}}" not in str(MATRIX[key].options):
            continue
        answers = [
            ask(site, key, caller=site.second, ids=site.second.ids | {name: ids[name]})
            for ids in (site.first.ids, unknown)
        ]
        assert answers[0].status_code == 422
        assert shown(answers[0]) == shown(answers[1])


# Last of all a DELETE: it takes the row that the others name. In the matrix they stand in such an
# order that nothing refers to what is deleted.
IN_ORDER = [
    *sorted(key for key in MATRIX if key[0] != "DELETE"),
    *(key for key in MATRIX if key[0] == "DELETE"),
]


@pytest.mark.parametrize("key", IN_ORDER, ids=" ".join)
def test_member_is_answered(site: Site, key: tuple[str, str]) -> None:
    """A member's request succeeds, and its answer holds nothing of the other organization."""
    response = ask(site, key, caller=site.first, ids=site.first.ids)
    assert response.status_code == MATRIX[key].status, response.text
    for foreign in (site.second.organization_id, site.second.user_id, *site.second.ids.values()):
        assert str(foreign) not in response.text


@pytest.mark.parametrize("key", sorted(OPEN), ids=" ".join)
def test_open_routes_tell_of_no_tenant(site: Site, key: tuple[str, str]) -> None:
    """What anybody may ask names no organization, user or set."""
    path = f"{key[1]}/swagger-ui.css" if key[1].endswith("assets") else key[1]
    response = site.http.request(key[0], path)
    assert response.status_code == 200
    for member in (site.first, site.second):
        for id_ in (member.organization_id, member.user_id, *member.ids.values()):
            assert str(id_) not in response.text
