"""What is run against what: endpoints, and configurations that pair one with a set of tests."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assay.config import LONGEST_ENDPOINT_TIMEOUT, EndpointPolicy
from assay.database import SessionLocal
from assay.exceptions import InvalidValueError, UnknownConfigurationError
from assay.models import Endpoint, TestConfiguration, TestSet, TestSetTest
from assay.services.endpoints import checked_url
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
    """
    name = checked_name(name, what="the configuration's name")
    if not 1 <= timeout_seconds <= LONGEST_ENDPOINT_TIMEOUT:
        raise InvalidValueError(
            f"the endpoint's time is {timeout_seconds} s: it must be 1 to "
            f"{LONGEST_ENDPOINT_TIMEOUT}"
        )
    checked_url(url, policy)
    endpoint_id, configuration_id = uuid.uuid4(), uuid.uuid4()
    with tenant_scope(organization_id, sessions=sessions) as session:
        session.add(Endpoint(id=endpoint_id, name=name, url=url, timeout_seconds=timeout_seconds))
        session.flush()
        session.add(
            TestConfiguration(
                id=configuration_id, name=name, test_set_id=test_set_id, endpoint_id=endpoint_id
            )
        )
    return configuration_id


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
