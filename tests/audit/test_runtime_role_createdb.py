from secrets import token_hex

from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


def test_runtime_role_createdb(audited: Audited, make_role: MakeRole) -> None:
    """Of its own, or of a role that it can become; not of a role out of reach."""
    role, group, stranger = make_role("createdb"), make_role("createdb"), make_role("createdb")
    audited.configure(app_role=role)
    audited.broken_by(f"grant {group} to {role}")
    assert stranger != group
    audited.finds("runtime_role_createdb", role, group)
    audited.mended()


def test_sessions_are_seen_from_a_database_of_its_own(
    audited: Audited, make_role: MakeRole
) -> None:
    """The harm: what was taken from PUBLIC in one database is there in a new one."""
    login = make_role("createdb login password 'secret'")
    mine = f"mine_{token_hex(4)}"
    audited.configure(app_role=login)
    audited.broken_by(f"grant connect on database {audited.database.name} to {login}")
    here = audited.database.app_url.set(username=login, password="secret")
    with connected(here) as theirs:
        theirs.execute(f"create database {mine} template template0")
        try:
            theirs.execute("select 'another tenant''s'")
            with connected(here.set(database=mine)) as own:
                own.execute("select datname, query from pg_catalog.pg_stat_activity")
                seen = own.fetchall()
        finally:
            theirs.execute(f"drop database {mine}")
    assert (audited.database.name, "select 'another tenant''s'") in seen
    audited.finds("runtime_role_createdb", login)
    audited.mended()
