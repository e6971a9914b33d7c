import pytest
from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

INSERT = "insert into test_sets (organization_id, name) values (gen_random_uuid(), 'anyone''s')"


@pytest.mark.parametrize("grantee", ["public", "tenantry_app"])
def test_database_temporary(audited: Audited, grantee: str) -> None:
    """The privilege that PUBLIC has from the beginning, and one that was granted."""
    name = audited.database.name
    audited.broken_by(f"grant temporary on database {name} to {grantee}")
    audited.finds("database_temporary", name)
    audited.mended()


def test_temporary_table_takes_the_place_of_a_real_one(audited: Audited) -> None:
    """The harm: rows of any tenant are written where no policy is, and read by the next one."""
    audited.broken_by(f"grant temporary on database {audited.database.name} to public")
    with connected(audited.database.app_url) as cursor:
        cursor.execute("create temp table test_sets (like public.test_sets including defaults)")
        cursor.execute(INSERT)
        cursor.execute("select name from test_sets")
        assert cursor.fetchall() == [("anyone's",)]
    audited.finds("database_temporary", audited.database.name)
    audited.mended()


def test_database_that_was_never_granted_on_is_found(audited: Audited) -> None:
    """Without an entry of its own a database lets PUBLIC connect and create temporary tables."""
    name = audited.database.name
    audited.broken_by(
        f"update pg_catalog.pg_database set datacl = null where datname = '{name}'",
    )
    audited.finds("database_temporary", name, besides=(("database_connect_public", name),))
    audited.mended(
        f"grant connect on database {name} to tenantry_login",
        f"revoke connect on database {name} from public",
    )
