import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import TWO_TENANTS, answer

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


def test_what_everybody_has_is_not_the_authenticators(audited: Audited) -> None:
    """To revoke from it what PUBLIC has would change nothing."""
    audited.broken_by("grant select, update on test_sets to public")
    audited.finds("granted_to_public", "public.test_sets")
    audited.mended()


def test_membership_that_another_role_granted_is_ended(
    audited: Audited, make_role: MakeRole
) -> None:
    """From PostgreSQL 16 on REVOKE has to say whose grant it is."""
    role, granter = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant tenantry_authenticator to {granter} with admin option",
        f"set role {granter}; grant tenantry_authenticator to {role}",
    )
    audited.finds("authenticator_unconfined", role)
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


TOKENS = (
    "insert into users (organization_id, id, email, name) "
    "select id, id, name || '@x.example', name from organizations",
    "insert into api_tokens (organization_id, id, user_id, name, prefix, token_hash) "
    "select id, id, id, name, 'p', sha256(name::bytea) from organizations",
)
DEFINER = "security definer set search_path = pg_catalog, pg_temp"


def test_second_function_of_the_authenticator_is_found(audited: Audited) -> None:
    """It returned the tokens of all tenants; the one that looks up a token is known by its text."""
    audited.broken_by(
        *TWO_TENANTS,
        *TOKENS,
        f"create function tokens() returns setof api_tokens language sql {DEFINER} "
        "as 'select * from public.api_tokens'",
        "alter function tokens() owner to tenantry_authenticator",
        "revoke execute on function tokens() from public",
        "grant execute on function tokens() to tenantry_app",
    )
    assert len(answer(audited, "select name from tokens()")) == 2
    found = audited.finds("authenticator_unconfined", "public.tokens()")
    assert "is not the one function that looks up a token" in found.problem
    audited.mended("drop function tokens()")


def test_look_up_that_ignores_the_hash_is_found(audited: Audited) -> None:
    """By its name it is the one; it returned everybody's organization to anybody."""
    audited.broken_by(
        *TWO_TENANTS,
        *TOKENS,
        "create or replace function authenticate_token(token_hash bytea) "
        "returns table (organization_id uuid, user_id uuid) language sql stable strict "
        "security definer set search_path = pg_catalog, public, pg_temp "
        "as 'select t.organization_id, t.user_id from public.api_tokens t'",
    )
    assert len(answer(audited, "select * from authenticate_token('x')")) == 2
    found = audited.finds("authenticator_unconfined", f"public.{LOOK_UP}")
    assert "compares no token" in found.problem
    audited.mended(f"drop function {LOOK_UP}")


def test_trigger_function_of_the_authenticator_is_found(audited: Audited) -> None:
    """It takes no EXECUTE, and reads the tokens of all tenants."""
    audited.broken_by(
        *TWO_TENANTS,
        *TOKENS,
        f"create function told() returns trigger language plpgsql {DEFINER} as $$ begin "
        "new.description := (select string_agg(name, ',' order by name) from public.api_tokens); "
        "return new; end $$",
        "alter function told() owner to tenantry_authenticator",
        "create trigger t before update on test_sets for each row execute function told()",
    )
    look = "update test_sets set name = name returning description"
    assert answer(audited, look) == [("mine,theirs",)]
    audited.finds("authenticator_unconfined", "public.told()")
    audited.mended("drop function told() cascade")
