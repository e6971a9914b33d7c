import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

SPY = (
    "create function spy(text) returns boolean language plpgsql stable cost 0.0001 "
    "set search_path = pg_catalog, pg_temp as "
    "$$ begin if $1 = 'theirs' then raise exception 'saw %', $1; end if; return true; end $$"
)
POLICY = "create policy a_spy on test_sets as restrictive using (spy(name))"
COSTLY = ("policy_function_costly", "public.spy(text)")
# A table this small is read by its key, which leaves other tenants' rows where they are.
LOOK = (
    "set enable_indexscan = off",
    "set enable_bitmapscan = off",
    "select name from test_sets",
)


def test_policy_function_early(audited: Audited) -> None:
    """A restrictive policy whose name comes before the wall's; after it, it sees one tenant's."""
    audited.broken_by(*TWO_TENANTS, SPY, POLICY)
    with pytest.raises(psycopg2.errors.RaiseException, match="saw theirs"):
        answer(audited, *LOOK)
    found = audited.finds("policy_function_early", "a_spy on public.test_sets", besides=(COSTLY,))
    assert found.statement is not None
    assert "public.spy(text)" in found.problem
    audited.broken_by(found.statement)
    assert answer(audited, *LOOK) == [("mine",)]
    audited.finds(
        "policy_contained", "test_sets_tenant_wall_a_spy on public.test_sets", besides=(COSTLY,)
    )
    audited.mended("drop function spy(text) cascade")


def test_function_behind_an_operator_is_found(audited: Audited) -> None:
    """An operator of one's own calls one, and shows no function."""
    audited.broken_by(
        SPY.replace("spy(text)", "spy(text, text)"),
        "create operator === (leftarg = text, rightarg = text, function = spy)",
        "create policy a_spy on test_sets as restrictive for select using (name === 'x')",
    )
    besides = (("policy_function_costly", "public.spy(text,text)"),)
    audited.finds("policy_function_early", "a_spy on public.test_sets", besides=besides)


def test_functions_that_see_no_other_tenants_row_pass(audited: Audited) -> None:
    """Permissive policies are asked last; an INSERT's sees the row that it brings."""
    audited.broken_by(
        *TWO_TENANTS,
        SPY,
        "create policy a_spy on test_sets using (spy(name))",
        "create policy b_spy on test_sets as restrictive for insert with check (spy(name))",
        "create extension citext",
        "create policy c on test_sets as restrictive for select "
        "using (name::citext = 'mine'::citext)",
    )
    assert answer(audited, *LOOK) == [("mine",)]
    assert "policy_function_early" not in {each.check for each in audited.audit().findings}
