import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize(
    "catalog",
    ["pg_statistic", "pg_statistic_ext_data", "pg_largeobject", "pg_authid", "pg_shadow"],
)
@pytest.mark.parametrize("grantee", ["public", "tenantry_app"])
def test_catalog_readable(audited: Audited, catalog: str, grantee: str) -> None:
    """What holds values of rows or passwords, and is kept for superusers."""
    audited.broken_by(f"grant select on pg_catalog.{catalog} to {grantee}")
    audited.finds("catalog_readable", f"pg_catalog.{catalog}")
    audited.mended()


def test_column_of_a_catalog_is_found(audited: Audited) -> None:
    """The values are in five columns of pg_statistic; all columns of pg_class are everybody's."""
    audited.broken_by(
        "grant select (stavalues1) on pg_catalog.pg_statistic to tenantry_app",
        "grant select (relname) on pg_catalog.pg_class to tenantry_app",
    )
    audited.finds("catalog_readable", "pg_catalog.pg_statistic")
    audited.mended()


def test_another_tenants_values_are_in_the_statistics(audited: Audited) -> None:
    """The harm: ANALYZE keeps the most common values, whichever tenant's they are."""
    audited.broken_by(
        "insert into organizations (name) values ('Acme')",
        "insert into tests (organization_id, prompt, expected, metric, category)"
        " select o.id, 'p', '{x}', 'exact', 'a secret of Acme'"
        " from organizations as o, generate_series(1, 50)",
        "analyze tests",
        "grant select on pg_catalog.pg_statistic to tenantry_app",
    )
    with connected(audited.database.app_url) as cursor:
        cursor.execute("select most_common_vals from pg_catalog.pg_stats where tablename = 'tests'")
        assert cursor.fetchall() == []
        cursor.execute(
            "select stavalues1::text from pg_catalog.pg_statistic"
            " where starelid = 'public.tests'::regclass and stavalues1::text like '%secret%'"
        )
        assert cursor.fetchall() == [('{"a secret of Acme"}',)]
    audited.finds("catalog_readable", "pg_catalog.pg_statistic")
    audited.mended()


def test_catalogs_for_everybody_and_other_roles_are_not_found(
    audited: Audited, make_role: MakeRole
) -> None:
    """pg_stats asks row security; a monitoring role is trusted with statistics."""
    audited.broken_by(
        "grant select on pg_catalog.pg_stats to tenantry_app",
        f"grant select on pg_catalog.pg_statistic to {make_role()}",
    )
    assert audited.audit().findings == ()


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("select rolname, rolpassword from pg_authid", "view"),
        ("select a::text from pg_authid as a", "view"),
        ("select usename, passwd as p from pg_shadow", "materialized view"),
        ("select starelid, stavalues1::text from pg_statistic", "view"),
        ("select data from pg_largeobject", "materialized view"),
        ("select pid, query from pg_stat_activity", "materialized view"),
    ],
)
def test_view_of_a_secret_catalog(audited: Audited, query: str, kind: str) -> None:
    """Its owner may read what the application may not; by a further view too."""
    audited.broken_by(
        "create schema hidden",
        f"create {kind} hidden.secrets as {query}",
        'create view "Sec""rets" as select * from hidden.secrets',
    )
    assert audited.audit().findings == ()
    audited.broken_by('grant select on "Sec""rets" to tenantry_app')
    audited.finds("catalog_readable", 'public."Sec""rets"')
    audited.mended()
    audited.broken_by("grant select on hidden.secrets to public", 'drop view "Sec""rets"')
    assert audited.finds("catalog_readable", "hidden.secrets").object_type == kind
    audited.mended()


def test_view_of_what_is_no_secret(audited: Audited) -> None:
    """Names of roles, sizes, what a view filters for who asks, and what asks with his rights."""
    audited.broken_by(
        "create view names as select rolname from pg_authid",
        "create view sizes as select relname, relpages from pg_class",
        "create view busy as select pid, query from pg_stat_activity",
        "create view own with (security_invoker = true) as select rolpassword from pg_authid",
        "grant select on names, sizes, busy, own to tenantry_app",
    )
    assert audited.audit().findings == ()


def test_long_values_of_tenants(audited: Audited) -> None:
    """They are in a table of their own, which has no row security."""
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute("select reltoastrelid::regclass::text from pg_class where relname = 'tests'")
        ((toast,),) = cursor.fetchall()
    audited.broken_by(f"grant select on {toast} to tenantry_app")
    assert audited.finds("catalog_readable", toast).object_type == "TOAST table"
    audited.mended()


def test_connection_of_a_subscription(audited: Audited) -> None:
    """By the one column that is not everybody's."""
    audited.broken_by("grant select (subconninfo) on pg_subscription to tenantry_app")
    audited.finds("catalog_readable", "pg_catalog.pg_subscription")
    audited.mended()
