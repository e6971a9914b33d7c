import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize(
    ("create", "kind", "name"),
    [
        ('create schema "A \' b" authorization {}', "schema", '"A \' b"'),
        (
            "create function public.\"f(x)\"() returns integer language sql as 'select 1';"
            'alter function public."f(x)"() owner to {}',
            "function",
            'public."f(x)"()',
        ),
        (
            'create table "select" (id integer); alter table "select" owner to {}',
            "table",
            'public."select"',
        ),
        ("create sequence s; alter sequence s owner to {}", "sequence", "public.s"),
        ("create type public.t as enum ('a'); alter type public.t owner to {}", "type", "public.t"),
    ],
)
def test_runtime_role_owns(
    audited: Audited, make_role: MakeRole, create: str, kind: str, name: str
) -> None:
    """Whatever it is: its owner replaces it, grants it, drops it."""
    role, login = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant {role} to {login}", create.format(login))
    found = audited.finds("runtime_role_owns", name)
    assert (found.object_type, login in found.problem) == (kind, True)
    audited.mended(f"reassign owned by {login} to tenantry_owner")


def test_owner_of_the_database_is_found(audited: Audited, make_role: MakeRole) -> None:
    """It owns the schema public as well, as a member of pg_database_owner."""
    name = audited.database.name
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"alter database {name} owner to {role}")
    audited.finds("runtime_role_owns", name)
    audited.mended(f"alter database {name} owner to tenantry_migrator")


def test_what_is_temporary_or_elsewhere_is_not_found(audited: Audited, make_role: MakeRole) -> None:
    """Another role's objects, default privileges, and a tenant table, which has its own check."""
    role, other = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table shared (id integer)",
        f"alter table shared owner to {other}",
        f"alter default privileges for role {role} revoke execute on functions from public",
    )
    assert audited.audit().findings == ()
    audited.broken_by(f"alter table test_sets owner to {role}")
    audited.finds("table_owner_reachable", "public.test_sets")
    audited.mended(
        "alter table test_sets owner to tenantry_owner",
        "grant select, insert, update, delete on test_sets to tenantry_app",
    )
