import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import THEIRS, TWO_TENANTS, answer, walled


def test_view_without_security_invoker(audited: Audited) -> None:
    """A view of the owner's shows all tenants, also through a view that is careful itself."""
    audited.broken_by(
        "create view inner_view as select id, name from test_sets",
        'create view "Outer ""view""" with (security_invoker = on) as select id from inner_view',
        'grant select on inner_view, "Outer ""view""" to tenantry_app',
    )
    audited.finds("view_without_security_invoker", "public.inner_view")
    audited.mended()


def test_replaced_view_loses_the_option_and_is_found(audited: Audited) -> None:
    """CREATE OR REPLACE VIEW without the option drops it."""
    audited.broken_by(
        "create view names with (security_invoker = true) as select name from test_sets",
        "grant select on names to tenantry_app",
    )
    assert audited.audit().findings == ()
    audited.broken_by("create or replace view names as select name from test_sets")
    audited.finds("view_without_security_invoker", "public.names")
    audited.mended()


def test_materialized_view_is_found_once_it_is_granted(audited: Audited) -> None:
    """It holds the rows of all tenants, and no option helps."""
    audited.broken_by("create materialized view totals as select count(*) from test_sets")
    assert audited.audit().findings == ()
    audited.broken_by("grant select on totals to tenantry_app")
    found = audited.finds("view_without_security_invoker", "public.totals")
    assert found.object_type == "materialized view"
    audited.mended("revoke select on totals from tenantry_app")


def test_foreign_table_with_the_tenant_column_is_found(audited: Audited) -> None:
    """Row security is of the other server's tables, if at all."""
    audited.broken_by(
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create foreign table far (organization_id uuid) server s",
        "grant select on far to tenantry_app",
    )
    found = audited.finds("view_without_security_invoker", "public.far")
    assert found.object_type == "foreign table"
    audited.mended("revoke select on far from tenantry_app")


def test_view_for_a_role_that_the_application_can_become(
    audited: Audited, make_role: MakeRole
) -> None:
    """SET ROLE is all it takes."""
    role, reporting = make_role("noinherit"), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create view names as select name from test_sets",
        f"grant select on names to {reporting}",
        f"grant {reporting} to {role}",
    )
    audited.finds(
        "view_without_security_invoker", "public.names", besides=(("role_reachable", role),)
    )
    audited.mended()


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_view_of_a_table_that_tenant_tables_inherit_from(audited: Audited, kind: str) -> None:
    """The parent is granted to nobody; what the view reads of it are the children's rows."""
    audited.broken_by(
        "create table base (body text)",
        "alter table base owner to tenantry_owner",
        *walled("notes", "id uuid", then="inherits (base)"),
        f"insert into notes (organization_id, body) values ('{THEIRS}', 'theirs')",
        f"create {kind} bodies as select body from base",
        f"alter {kind} bodies owner to tenantry_owner",
        f"refresh {kind} bodies" if kind.startswith("m") else "select 1",
        "grant select on bodies to tenantry_app",
    )
    assert answer(audited, "select body from bodies") == [("theirs",)]
    audited.finds("view_without_security_invoker", "public.bodies")
    audited.broken_by("revoke select on bodies from tenantry_app")
    assert audited.audit().findings == ()


@pytest.mark.parametrize("schema", ["rep", "information_schema"])
def test_view_is_found_wherever_it_is(audited: Audited, schema: str) -> None:
    """Beyond the schemas that are looked at, and in one that is the server's."""
    audited.broken_by(
        *TWO_TENANTS,
        "create schema rep",
        "grant usage on schema rep to tenantry_app",
        f"create view {schema}.names as select name from public.test_sets",
        f"grant select on {schema}.names to tenantry_app",
    )
    assert len(answer(audited, f"select name from {schema}.names")) == len(("mine", "theirs"))
    audited.configure(schemas=("public",))
    audited.finds("view_without_security_invoker", f"{schema}.names")
    audited.mended()
