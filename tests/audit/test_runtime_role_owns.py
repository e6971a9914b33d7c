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


@pytest.mark.parametrize("attributes", ["", "noinherit"])
def test_what_a_reachable_role_owns(audited: Audited, make_role: MakeRole, attributes: str) -> None:
    """By inheritance or by SET ROLE its things are the application's to change."""
    role, keeper = make_role(attributes), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {keeper} to {role}",
        "create sequence numbers",
        f"alter sequence numbers owner to {keeper}",
        f"alter schema tenantry_broker owner to {keeper}",
    )
    found = audited.finds("runtime_role_owns", "public.numbers", "tenantry_broker")
    assert found.problem == f"{role} acts as the application and can become its owner {keeper}"
    audited.mended(f"reassign owned by {keeper} to tenantry_owner")


def test_user_mapping_is_its_roles_by_definition(audited: Audited) -> None:
    """A superuser makes it for the login, which cannot change whom it is for."""
    audited.broken_by(
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create user mapping for tenantry_app server s",
    )
    assert audited.audit(only=["runtime_role_owns"]).findings == ()
