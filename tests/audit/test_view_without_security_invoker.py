from tests.audit.conftest import Audited


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
