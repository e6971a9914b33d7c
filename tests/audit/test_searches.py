"""A database that searches in the right way is clean, and each way of spoiling that is found."""

import pytest
from tests.audit.conftest import Audited
from tests.fixtures.catalogs import A, create_catalog, fill

FUNCTION = "public.goods_by_label(text)"


@pytest.fixture
def searched(audited: Audited) -> Audited:
    """Return a database in which nothing is wrong, with a search of each kind."""
    create_catalog(audited.database)
    assert audited.audit().findings == ()
    return audited


@pytest.mark.parametrize(
    ("check", "statement", "by_hand"),
    [
        ("definer_function_public", f"grant execute on function {FUNCTION} to public", ()),
        (
            "definer_function_search_path",
            f"alter function {FUNCTION} set search_path = public",
            (),
        ),
        (
            "definer_function_search_path",
            f"alter function {FUNCTION} reset search_path",
            (f"alter function {FUNCTION} set search_path = pg_catalog, pg_temp",),
        ),
    ],
    ids=["public", "without pg_temp", "unpinned"],
)
def test_spoilt_search_is_found(
    searched: Audited, check: str, statement: str, by_hand: tuple[str, ...]
) -> None:
    """A search that everybody may call or that has lost its search_path is a finding."""
    searched.broken_by(statement)
    searched.finds(check, FUNCTION)
    searched.mended(*by_hand)


def test_search_by_a_role_beyond_the_wall_is_found(searched: Audited) -> None:
    """A search that runs as a role with BYPASSRLS would find every tenant's rows."""
    searched.broken_by(f"alter function {FUNCTION} owner to tenantry_maintenance")
    # Its policy is no search's any more, but a restriction that nobody expects.
    policy = next(
        each.object for each in searched.audit().findings if each.check == "policy_contained"
    )
    searched.finds("definer_function_exposed", FUNCTION, besides=(("policy_contained", policy),))
    searched.mended(f"alter function {FUNCTION} owner to goods_by_label_searcher")


def test_policy_that_takes_rows_from_the_application_is_found(searched: Audited) -> None:
    """A restrictive policy is a search's only for the role that the search runs as."""
    searched.broken_by(
        "create policy odd on goods as restrictive for select to tenantry_app using (cost > 0)"
    )
    searched.finds("policy_contained", "odd on public.goods")
    searched.mended("drop policy odd on goods")


def test_large_table_that_is_searched_is_clean(searched: Audited) -> None:
    """The indexes of a large table need no search where there is one for each of them."""
    fill(searched.database, A, "a", count=12_000)
    searched.broken_by("analyze goods")
    assert searched.audit().findings == ()
    policy = "select polname from pg_policy where polname like 'goods_search_%'"
    searched.broken_by(
        "do $$ declare policy text; begin for policy in "
        f"{policy} loop execute format('drop policy %I on goods', policy); end loop; end $$"
    )
    assert {each.check for each in searched.audit().findings} == {"index_not_leakproof"}
