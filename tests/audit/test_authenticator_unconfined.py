import pytest
from tests.audit.conftest import Audited, MakeRole

LOOK_UP = "authenticate_token(bytea)"


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("grant update on api_tokens to tenantry_authenticator", "public.api_tokens"),
        ("grant select (id) on test_sets to tenantry_authenticator", "public.test_sets"),
    ],
)
def test_authenticator_unconfined(audited: Audited, statement: str, table: str) -> None:
    """The role that looks up tokens selects from the token table, and does nothing else."""
    audited.broken_by(statement)
    audited.finds("authenticator_unconfined", table)
    audited.mended()


def test_function_of_the_authenticator_pins_its_search_path(audited: Audited) -> None:
    """A temporary table would otherwise shadow the token table."""
    audited.broken_by(f"alter function {LOOK_UP} reset search_path")
    audited.finds("authenticator_unconfined", f"public.{LOOK_UP}")
    audited.mended(f"alter function {LOOK_UP} set search_path = pg_catalog, public, pg_temp")


def test_role_of_the_application_cannot_become_the_authenticator(
    audited: Audited, make_role: MakeRole
) -> None:
    """Who can become it reads the tokens of all tenants."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant tenantry_authenticator to {role}")
    audited.finds("authenticator_unconfined", role)
    audited.mended()


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        ("login", "can log in"),
        ("createrole", "has CREATEROLE"),
        ("createdb", "has CREATEDB"),
        ("replication", "has REPLICATION"),
    ],
)
def test_authenticator_with_an_attribute_is_found(
    audited: Audited, make_role: MakeRole, attribute: str, problem: str
) -> None:
    """It is a role for one function to run as, nobody's login, and manages nothing."""
    role = make_role(attribute)
    audited.configure(authenticator_role=role)
    rule = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
    audited.broken_by(
        "alter policy api_tokens_tenant_wall on api_tokens "
        f"using ({rule} or current_user = '{role}'::name)",
        f"alter policy api_tokens_reader on api_tokens to {role}",
    )
    found = audited.finds("authenticator_unconfined", role)
    assert found.problem == problem
    audited.mended()
