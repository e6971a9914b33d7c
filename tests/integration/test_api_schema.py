"""Schemathesis asks a running API for what its OpenAPI document allows, and for what it forbids.

The operations are those of the document: a new route is asked without an entry here.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction
from schemathesis.config import (
    CoveragePhaseConfig,
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
)
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from tests.fixtures.api_app import create_app
from tests.fixtures.api_site import Member, Site, new_member, new_site

from tenantry.testing import Database

EXAMPLES = 3


@schemathesis.serializer("application/jsonl", "application/x-ndjson")
def _lines(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """Send what is no file as the only line of one."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


schema = schemathesis.openapi.from_dict(
    create_app().openapi(),
    config=schemathesis.Config(
        seed=1,
        projects=ProjectsConfig(
            default=ProjectConfig(
                generation=GenerationConfig(
                    deterministic=True, max_examples=EXAMPLES, with_security_parameters=False
                ),
                # `/test_sets/import` is a set's path to other methods, and Starlette's header
                # `Allow` is that of a path's first route.
                phases=PhasesConfig(coverage=CoveragePhaseConfig(unexpected_methods=set())),
            )
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Target:
    """The API, and who asks it."""

    site: Site
    session: requests.Session
    member: Member


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return an API with room for many requests."""
    rates = {
        "ASSAY_REQUESTS_PER_TOKEN": "1000000/minute",
        "ASSAY_FAILED_LOGINS": "1000000/minute",
    }
    with new_site(tenantry_database, tmp_path_factory.mktemp("site"), **rates) as site:
        yield site


@pytest.fixture
def target(site: Site) -> Iterator[Target]:
    """Return the API, and a member with rows that are new."""
    with requests.Session() as session:
        yield Target(site, session, new_member(site.engine, uuid.uuid4().hex))


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answer_is_what_the_document_says(case: schemathesis.Case[Any], target: Target) -> None:
    """Every answer has a status, a type and a shape of the document, and none is a 500.

    What the document forbids is refused, what needs a token is not answered without one, and each
    is asked for rows that exist and for some that do not.
    """
    # Not all that is text is a name, or an address that may be called.
    ask(case, target, positive_data_acceptance)
    if named(case, target.member.ids):
        ask(case, target, positive_data_acceptance, negative_data_rejection)


def ask(case: schemathesis.Case[Any], target: Target, *excluded: CheckFunction) -> None:
    """Make the request as the member, and check the answer in every other way."""
    case.call_and_validate(
        base_url=str(target.site.http.base_url),
        session=target.session,
        headers=target.member.headers,
        excluded_checks=list(excluded),
    )


def named(case: schemathesis.Case[Any], ids: Mapping[str, uuid.UUID]) -> bool:
    """Put rows that exist into the path; return whether it names any."""
    known = {name: str(ids[name]) for name in case.path_parameters or {} if name in ids}
    case.path_parameters = {**(case.path_parameters or {}), **known}
    return bool(known)
