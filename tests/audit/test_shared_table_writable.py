import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize(
    "grant",
    [
        "insert on {} to tenantry_app",
        "update (price), select on {} to tenantry_login",
        "delete on {} to public",
        "truncate on {} to tenantry_app",
        "trigger on {} to tenantry_app",
        "all on {} to tenantry_app, public",
    ],
)
@pytest.mark.parametrize("name", ["public.plans", '"A b"."select ""it"" \'\n"'])
def test_shared_table_writable(audited: Audited, grant: str, name: str) -> None:
    """What one tenant writes there all of them read; by a column or by PUBLIC too."""
    audited.broken_by(
        'create schema "A b"',
        f"create table {name} (price integer)",
        f"grant {grant.format(name)}",
    )
    audited.finds("shared_table_writable", name)
    audited.mended()


def test_version_table_is_found(audited: Audited) -> None:
    """Grants on all tables of a schema open those that are nobody's."""
    audited.broken_by("grant insert on all tables in schema public to tenantry_app")
    audited.finds("shared_table_writable", "public.alembic_version", "public.maintenance_log")
    audited.mended()


@pytest.mark.parametrize(
    "statements",
    [
        ("grant select on plans to tenantry_app, public",),
        ("grant insert on plans to tenantry_maintenance",),
        # By its parent a table may be a tenant's without the column.
        (
            "alter table plans enable row level security, force row level security",
            "grant insert on plans to tenantry_app",
        ),
    ],
)
def test_harmless_table_is_not_found(audited: Audited, statements: tuple[str, ...]) -> None:
    """Read by the application, written by another role, or guarded in another way."""
    audited.broken_by("create table plans (price integer)", *statements)
    assert audited.audit().findings == ()


def test_schemas_that_are_not_looked_at_are_left_out(audited: Audited) -> None:
    """`schemas` names the part of the database that is the project's."""
    audited.broken_by(
        "create schema queue",
        "create table queue.jobs (id integer)",
        "grant insert, delete on queue.jobs to tenantry_app",
    )
    audited.finds("shared_table_writable", "queue.jobs")
    audited.configure(schemas=("public",))
    assert audited.audit().findings == ()


def test_grants_of_a_group_are_found(audited: Audited, make_role: MakeRole) -> None:
    """What the application's role inherits is named with the group that holds it."""
    role, group = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table plans (price integer)",
        f"grant {group} to {role}",
        f"grant update on plans to {group}",
    )
    found = audited.finds("shared_table_writable", "public.plans")
    assert found.problem.startswith(f"{group} may write it")
    audited.mended()


def test_row_security_that_lets_everybody_through_is_none(audited: Audited) -> None:
    """Forced, and `true`."""
    audited.broken_by(
        "create table plans (price integer)",
        "alter table plans enable row level security, force row level security",
        "create policy everybody on plans using (true)",
        "grant select, update on plans to tenantry_app",
    )
    audited.finds("shared_table_writable", "public.plans")
    audited.mended()
