import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

FAR = (
    "create foreign data wrapper w",
    "create server s foreign data wrapper w",
    'create foreign table "Far ""away""" (id uuid, name text) server s',
)


@pytest.mark.parametrize(
    "way",
    [
        ('grant select on "Far ""away""" to tenantry_app',),
        ('grant update (name) on "Far ""away""" to public',),
        (
            'create view v as select name from "Far ""away"""',
            "create view v2 as select name from v",
            "grant select on v2 to tenantry_app",
        ),
        (
            "create table base (id uuid, name text)",
            'alter foreign table "Far ""away""" inherit base',
            "grant select on base to tenantry_app",
        ),
        (
            "create view bell as select 1 as n",
            'create rule r as on insert to bell do instead select name from "Far ""away"""',
            "grant insert on bell to tenantry_app",
        ),
    ],
)
def test_rows_unjudged(audited: Audited, way: tuple[str, ...]) -> None:
    """Row security is of the other server's tables, if at all, however one comes there."""
    audited.broken_by(*FAR)
    assert audited.audit().findings == ()
    audited.broken_by(*way)
    found = audited.finds("rows_unjudged", 'public."Far ""away"""')
    assert found.object_type == "foreign table"
    audited.mended('drop foreign table "Far ""away""" cascade')


def test_foreign_table_behind_a_careful_view(audited: Audited) -> None:
    """Who asks needs a grant on the foreign table then."""
    audited.broken_by(
        *FAR,
        'create view v with (security_invoker = true) as select name from "Far ""away"""',
        "grant select on v to tenantry_app",
    )
    assert audited.audit().findings == ()


@pytest.mark.parametrize("between", ["f() as name", "(select * from named) as inner_one"])
def test_materialized_view_of_a_function(audited: Audited, between: str) -> None:
    """It keeps what the function returned to the owner."""
    audited.broken_by(
        *TWO_TENANTS,
        "create function f() returns setof text language sql"
        " as 'select name from public.test_sets'",
        "revoke execute on function f() from public",
        "create view named as select * from f() as name",
        f"create materialized view m as select * from {between}",
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant select on m to tenantry_app")
    assert sorted(answer(audited, "select name from m")) == [("mine",), ("theirs",)]
    audited.finds("rows_unjudged", "public.m")
    audited.mended("revoke select on m from tenantry_app")


def test_functions_of_the_server_and_of_extensions_read_no_table(audited: Audited) -> None:
    """A materialized view of them holds nobody's rows."""
    audited.broken_by(
        "create extension pg_trgm",
        "revoke execute on all functions in schema public from public",
        "create materialized view m as select similarity('a', 'b'), now()",
        "grant select on m to tenantry_app",
    )
    assert audited.audit(only=["rows_unjudged"]).findings == ()


@pytest.mark.parametrize("column", ["Organization_ID", "organizationId"])
def test_column_called_nearly_as_the_tenant_column(audited: Audited, column: str) -> None:
    """A person takes it for the tenant column."""
    audited.broken_by(
        *TWO_TENANTS,
        f'create table archive as select organization_id as "{column}", name from test_sets',
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant select on archive to tenantry_app")
    assert sorted(answer(audited, "select name from archive")) == [("mine",), ("theirs",)]
    found = audited.finds("rows_unjudged", "public.archive")
    assert f'"{column}"' in found.problem
    audited.mended("revoke select on archive from tenantry_app")
