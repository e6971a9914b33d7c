"""What is run against what: endpoints, and configurations that pair one with a set of tests."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from assay.config import LONGEST_ENDPOINT_TIMEOUT, EndpointPolicy
from assay.database import SessionLocal
from assay.exceptions import (
    DuplicateConfigurationError,
    InUseError,
    InvalidValueError,
    UnknownConfigurationError,
    UnknownReferenceError,
)
from assay.models import (
    Endpoint,
    RunStatus,
    TestConfiguration,
    TestRun,
    TestSet,
    TestSetTest,
)
from assay.services.constraints import flush
from assay.services.pages import Page, read_page
from assay.services.targets import create_endpoint
from assay.services.values import checked_name
from tenantry import tenant_scope


@dataclass(frozen=True, slots=True)
class ConfigurationSummary:
    """A configuration with what it names."""

    id: uuid.UUID
    name: str
    test_set_id: uuid.UUID
    test_set: str
    tests: int
    endpoint: str
    url: str
    timeout_seconds: int


def create_configuration(
    organization_id: uuid.UUID,
    name: str,
    *,
    test_set_id: uuid.UUID,
    url: str,
    policy: EndpointPolicy,
    timeout_seconds: int = 30,
    sessions: Callable[[], Session] = SessionLocal,
) -> uuid.UUID:
    """Create an endpoint and a configuration that runs the set against it; return the latter's id.

    Both have the same name, which must be new to the organization.

    Raises:
        InvalidValueError: the name or the time is none that can be stored.
        RefusedEndpointError: the URL is one that Assay does not call.
        DuplicateEndpointError: the organization has an endpoint of this name.
        DuplicateConfigurationError: it has a configuration of this name.
        UnknownReferenceError: it has no such set.
    """
    name = checked_name(name, what="the configuration's name")
    if not 1 <= timeout_seconds <= LONGEST_ENDPOINT_TIMEOUT:
        raise InvalidValueError(
            f"the endpoint's time is {timeout_seconds} s: it must be 1 to "
            f"{LONGEST_ENDPOINT_TIMEOUT}"
        )
    with tenant_scope(organization_id, sessions=sessions) as session:
        endpoint = create_endpoint(
            session, name, url, timeout_seconds=timeout_seconds, policy=policy
        )
        created = add_configuration(session, name, test_set_id=test_set_id, endpoint_id=endpoint.id)
        return created.id


def describe_configuration(session: Session, configuration_id: uuid.UUID) -> ConfigurationSummary:
    """Return the configuration of this id, as the Session's tenant sees it.

    Raises:
        UnknownConfigurationError: the tenant has none of this id.
    """
    tests = (
        select(func.count())
        .select_from(TestSetTest)
        .where(TestSetTest.test_set_id == TestConfiguration.test_set_id)
        .scalar_subquery()
    )
    row = session.execute(
        select(
            TestConfiguration.id,
            TestConfiguration.name,
            TestSet.id,
            TestSet.name,
            tests,
            Endpoint.name,
            Endpoint.url,
            Endpoint.timeout_seconds,
        )
        .join(TestSet, TestSet.id == TestConfiguration.test_set_id)
        .join(Endpoint, Endpoint.id == TestConfiguration.endpoint_id)
        .where(TestConfiguration.id == configuration_id)
    ).one_or_none()
    if row is None:
        raise UnknownConfigurationError(
            f"there is no test configuration {configuration_id} in this organization"
        )
    return ConfigurationSummary(*row)


def count_sets(session: Session) -> int:
    """Return how many sets of tests the Session's tenant has."""
    return session.scalar(select(func.count()).select_from(TestSet)) or 0


def add_configuration(
    session: Session, name: str, *, test_set_id: uuid.UUID, endpoint_id: uuid.UUID
) -> TestConfiguration:
    """Create a configuration of the Session's organization.

    Raises:
        DuplicateConfigurationError: the organization has a configuration of this name.
        UnknownReferenceError: it has no such set, or no such endpoint, whoever else may have one.
    """
    created = TestConfiguration(
        id=uuid.uuid4(), name=name, test_set_id=test_set_id, endpoint_id=endpoint_id
    )
    session.add(created)
    _flush(session, name)
    return created


def get_configuration(
    session: Session, configuration_id: uuid.UUID, *, lock: bool = False
) -> TestConfiguration:
    """Return a configuration of the Session's organization.

    Raises:
        UnknownConfigurationError: the organization has none of this id.
    """
    query = select(TestConfiguration).where(TestConfiguration.id == configuration_id)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise UnknownConfigurationError("there is no such test configuration")
    return found


def change_configuration(
    session: Session,
    configuration_id: uuid.UUID,
    *,
    name: str | None = None,
    test_set_id: uuid.UUID | None = None,
    endpoint_id: uuid.UUID | None = None,
) -> TestConfiguration:
    """Change what is given of a configuration of the Session's organization.

    Raises:
        UnknownConfigurationError: the organization has none of this id.
        DuplicateConfigurationError: it has another one of this name.
        UnknownReferenceError: it has no such set, or no such endpoint.
        InUseError: a run under way counts the tests of another set.
    """
    # Locked against a run that begins: it would find one set, and its end another.
    found = get_configuration(session, configuration_id, lock=True)
    if test_set_id not in {None, found.test_set_id} and _is_run(session, configuration_id):
        raise InUseError("a run of this configuration is under way: cancel it, or wait for its end")
    if name is not None:
        found.name = name
    if test_set_id is not None:
        found.test_set_id = test_set_id
    if endpoint_id is not None:
        found.endpoint_id = endpoint_id
    _flush(session, found.name)
    session.refresh(found)
    return found


def delete_configuration(session: Session, configuration_id: uuid.UUID) -> None:
    """Delete a configuration that is not being run; its runs and their results stay.

    Raises:
        UnknownConfigurationError: the organization has none of this id.
        InUseError: a run of it is under way.
    """
    found = get_configuration(session, configuration_id, lock=True)
    if _is_run(session, configuration_id):
        raise InUseError("a run of this configuration is under way: cancel it, or wait for its end")
    session.delete(found)
    session.flush()


def page_of_configurations(
    session: Session, *, size: int, after: str | None = None
) -> Page[TestConfiguration]:
    """Return a part of the list of the organization's configurations, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    return read_page(session, select(TestConfiguration), TestConfiguration, size=size, after=after)


def _is_run(session: Session, configuration_id: uuid.UUID) -> bool:
    under_way = exists().where(
        TestRun.test_configuration_id == configuration_id,
        TestRun.status.in_((RunStatus.QUEUED, RunStatus.RUNNING)),
    )
    return bool(session.scalar(select(under_way)))


def _flush(session: Session, name: str) -> None:
    flush(
        session,
        {
            "uq_test_configurations_organization_id_name": DuplicateConfigurationError(
                f"the organization already has a test configuration named {name!r}"
            ),
            "fk_test_configurations_organization_id_test_set_id": UnknownReferenceError(
                "`test_set_id` names no set of tests of this organization"
            ),
            "fk_test_configurations_organization_id_endpoint_id": UnknownReferenceError(
                "`endpoint_id` names no endpoint of this organization"
            ),
        },
    )
