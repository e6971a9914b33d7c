import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, TWO_TENANTS, answer, walled

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
WALL = "test_sets_tenant_wall on public.test_sets"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (f"using ({RULE}) with check (true)", "with check is true, all rows"),
        ("using (true)", "using is true, all rows"),
        (f"using ({RULE} or organization_id is null)", "which can be true without a tenant"),
        (
            "using (organization_id = coalesce(nullif(current_setting("
            "'app.current_organization', true), '')::uuid, organization_id))",
            "which can be true without a tenant",
        ),
        (
            "using (organization_id = current_setting('app.current_organization', true)::uuid)",
            "using is (organization_id = (current_setting(",
        ),
        (f"using ({RULE.replace('app.current_organization', 'app.tenant')})", "'app.tenant'"),
        (f"using ({RULE.replace('organization_id =', 'id =')})", "using is (id = "),
        (
            f"using ({RULE} or current_user = 'tenantry_authenticator'::name) with check ({RULE})",
            "CURRENT_USER = 'tenantry_authenticator'",
        ),
    ],
)
def test_policy_expression(audited: Audited, policy: str, problem: str) -> None:
    """Whatever a wall compares but the tenant column with the setting is found, by its text."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        f"create policy test_sets_tenant_wall on test_sets as restrictive {policy}",
    )
    assert problem in audited.finds("policy_expression", WALL).problem
    audited.mended()


@pytest.mark.parametrize(
    "policy",
    [
        f"using ({RULE})",
        f"using ({RULE.replace('= ', '= (select ', 1)})) with check ({RULE})",
    ],
    ids=["check_left_out", "sub_select"],
)
def test_equivalent_walls_pass(audited: Audited, policy: str) -> None:
    """A check that is left out is the USING; a sub-select makes the setting an init plan."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        f"create policy test_sets_tenant_wall on test_sets as restrictive {policy}",
    )
    assert audited.audit().findings == ()


def test_function_planted_under_a_familiar_name_is_found(audited: Audited) -> None:
    """The text of the policy is the same in the author's search_path; the function is not."""
    audited.broken_by(
        "create schema planted",
        "create function planted.current_setting(text, boolean) returns text stable return 'x'",
        "drop policy test_sets_tenant_wall on test_sets",
        "set search_path = planted, pg_catalog, public; "
        f"create policy test_sets_tenant_wall on test_sets as restrictive using ({RULE})",
    )
    assert "planted.current_setting" in audited.finds("policy_expression", WALL).problem
    audited.mended()


def test_exception_of_the_token_table_keeps_its_check(audited: Audited) -> None:
    """The authenticator's exception is one for reading; the wall's check is the rule."""
    audited.broken_by("alter policy api_tokens_tenant_wall on api_tokens with check (true)")
    audited.finds("policy_expression", "api_tokens_tenant_wall on public.api_tokens")
    audited.mended()


def test_second_permissive_policy_without_a_wall_is_found(audited: Audited) -> None:
    """Permissive policies are OR-ed: without a wall the second one opens the table."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        "create policy shared on test_sets for select using (true)",
    )
    audited.finds(
        "policy_expression",
        "shared on public.test_sets",
        besides=(("wall_missing", "public.test_sets"),),
    )
    audited.mended()


REWRITE = (
    "drop policy test_sets_tenant on test_sets",
    "drop policy test_sets_tenant_wall on test_sets",
    f"create policy test_sets_tenant on test_sets using ({RULE})",
    f"create policy test_sets_tenant_wall on test_sets as restrictive using ({RULE})",
)
MIMICS = ("test_sets_tenant on public.test_sets", WALL)
LOOK = "select name from test_sets"


def test_planted_cast_is_found_where_the_policy_prints_like_the_rule(audited: Audited) -> None:
    """The server applies a cast that somebody has added, and writes it as it writes its own."""
    audited.broken_by(
        *TWO_TENANTS,
        "create schema planted",
        "create function planted.to_uuid(text) returns uuid language sql "
        f"as $$ select '{THEIRS}'::uuid $$",
        "create cast (text as uuid) with function planted.to_uuid(text)",
        *REWRITE,
    )
    assert answer(audited, LOOK) == [("theirs",)]
    found = [each for each in audited.audit().findings if each.check == "policy_expression"]
    assert [each.object for each in found] == list(MIMICS)
    # The rule, written again, would call the cast again.
    assert [each.statement for each in found] == [None, None]
    assert "not the server's own" in found[0].problem
    audited.broken_by("drop function planted.to_uuid(text) cascade", *REWRITE[2:])
    assert answer(audited, LOOK) == [("mine",)]
    assert audited.audit().findings == ()


def test_planted_operator_within_nullif_is_found(audited: Audited) -> None:
    """NULLIF finds its operator by the author's search_path, and does not show which it found."""
    rule = RULE.replace(" = ", " operator(pg_catalog.=) ")
    audited.broken_by(
        *TWO_TENANTS,
        "create schema planted",
        "grant usage on schema planted to public",
        "create function planted.eq(text, text) returns boolean language plpgsql as $$ begin "
        f"perform pg_catalog.set_config('app.current_organization', '{THEIRS}', false); "
        "return false; end $$",
        "create operator planted.= (leftarg = text, rightarg = text, function = planted.eq)",
        *REWRITE[:2],
        "set search_path = planted, pg_catalog, public",
        f"create policy test_sets_tenant on test_sets using ({rule})",
        f"create policy test_sets_tenant_wall on test_sets as restrictive using ({rule})",
    )
    assert ("theirs",) in answer(audited, LOOK, LOOK)
    found = [each for each in audited.audit().findings if each.check == "policy_expression"]
    assert [each.object for each in found] == list(MIMICS)


def test_planted_operator_between_other_types_is_found(audited: Audited) -> None:
    """In the system's schema an operator has no schema to show."""
    audited.broken_by(
        "create function eq(text, uuid) returns boolean immutable language sql as 'select true'",
        "create operator pg_catalog.= (leftarg = text, rightarg = uuid, function = eq)",
        *(each.replace("_id uuid not null", "_id text not null") for each in walled("docs")),
        "insert into docs values ('x')",
    )
    assert answer(audited, "select organization_id from docs") == [("x",)]
    found = {each.object for each in audited.audit().findings if each.check == "policy_expression"}
    assert found == {"tenant on public.docs", "wall on public.docs"}


@pytest.mark.parametrize(
    ("column", "id_type"),
    [
        ("inner_domain", "uuid"),
        ("outer_domain", "uuid"),
        ("smallint", "integer"),
        ("varchar(30)", "text"),
        ("short_text", "text"),
    ],
)
def test_column_of_a_related_type_passes(audited: Audited, column: str, id_type: str) -> None:
    """Domains, also of domains, and types that the server compares as they are."""
    table = [each.replace("uuid not null", f"{column} not null") for each in walled("shop.docs")]
    cast = "" if id_type == "text" else f"::{id_type}"
    audited.configure(id_type=id_type, schemas=("shop",))
    audited.broken_by(
        "create schema shop",
        "grant usage on schema shop to tenantry_app",
        "create domain inner_domain as uuid",
        "create domain outer_domain as inner_domain",
        "create domain short_text as varchar(30)",
        *(each.replace("::uuid", cast) for each in table),
    )
    found = {each.check for each in audited.audit().findings}
    assert found & {"policy_expression", "policy_contained", "wall_missing"} == set()
