from tests.audit.conftest import Audited

RULE = "account = nullif(current_setting('app.current_organization', true), '')"
# As an ICU collation made with deterministic = false; not each build of the server has ICU.
MAKE = (
    "create schema odd",
    'create collation odd.same from "C"',
    "set allow_system_table_mods = on; "
    "update pg_collation set collisdeterministic = false where collname = 'same'",
)


def statements(collation: str) -> tuple[str, ...]:
    return (
        *MAKE,
        f"create table notes (account text collate {collation} not null, b text collate odd.same)",
        "alter table notes owner to tenantry_owner",
        "alter table notes enable row level security, force row level security",
        f"create policy tenant on notes using ({RULE})",
        f"create policy wall on notes as restrictive using ({RULE})",
        "grant select on notes to tenantry_app",
    )


def test_tenant_column_collation(audited: Audited) -> None:
    """With a collation that ignores case the tenant acme was shown the rows of ACME."""
    audited.configure(tenant_column="account", id_type="text", root_table="none")
    audited.broken_by(*statements("odd.same"))
    found = audited.finds("tenant_column_collation", "account on public.notes")
    assert "odd.same is not deterministic" in found.problem
    audited.mended(
        "drop policy tenant on notes",
        "drop policy wall on notes",
        'alter table notes alter column account type text collate "C"',
        f"create policy tenant on notes using ({RULE})",
        f"create policy wall on notes as restrictive using ({RULE})",
    )


def test_other_columns_may_ignore_case(audited: Audited) -> None:
    """Only the tenant column decides whose row it is."""
    audited.configure(tenant_column="account", id_type="text", root_table="none")
    audited.broken_by(*statements('"C"'))
    assert audited.audit().findings == ()
