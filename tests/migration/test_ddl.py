"""The exact SQL of each operation, as `--sql` writes it."""

import io
from textwrap import dedent
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from tenantry import DEFAULT_CONFIG, TenancyConfig
from tenantry.alembic.operations import MigrationLogins

ADOPTER = TenancyConfig(
    organization_setting="shop.account",
    user_setting="shop.user",
    tenant_column="account_id",
    root_table="accounts",
    id_type="bigint",
    owner_role='the "owner"',
    app_role="app's 100%",
    authenticator_role="auth:\\n",
    maintenance_role="$tenantry$",
)

RULE = "nullif(current_setting('app.current_organization', true), '')::uuid"


class Script:
    """Operations that write SQL instead of running it."""

    def __init__(self, tenancy: TenancyConfig = DEFAULT_CONFIG, **options: Any) -> None:
        self._written = io.StringIO()
        context = MigrationContext.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},
            opts={
                "as_sql": True,
                "output_buffer": self._written,
                "literal_binds": True,
                "tenancy": tenancy,
            }
            | options,
        )
        self.op: Any = Operations(context)

    @property
    def text(self) -> str:
        return self._written.getvalue().strip()

    @property
    def statements(self) -> list[str]:
        return self.text.split(";\n\n")


@pytest.fixture
def script() -> Script:
    return Script()


def test_isolate_table_enables_forces_and_grants_the_crud_commands_alone(script: Script) -> None:
    """A tenant table gets one policy, one wall with the same rule, and four privileges."""
    script.op.isolate_table("tests")
    rule = f'"organization_id" = {RULE}'
    assert script.text == dedent(f"""\
        alter table "tests" owner to "tenantry_owner";

        alter table "tests" enable row level security;

        alter table "tests" force row level security;

        create policy "tests_tenant" on "tests" as permissive for all to public \
using ({rule}) with check ({rule});

        create policy "tests_tenant_wall" on "tests" as restrictive for all to public \
using ({rule}) with check ({rule});

        revoke all on table "tests" from public, "tenantry_app";

        grant select, insert, update, delete on table "tests" to "tenantry_app";

        do $tenantry$
        begin
          if exists (select from pg_catalog.pg_roles
                     where rolname = 'tenantry_maintenance') then
            grant select, insert, update, delete on table "tests" to "tenantry_maintenance";
          end if;
        end
        $tenantry$;

        do $tenantry$
        begin
          alter table "tests" alter column "organization_id" set statistics 1;
        exception when feature_not_supported then
          raise warning 'the statistics of % stay as they are: %', '"tests"', sqlerrm;
        end
        $tenantry$;""")


def test_isolate_table_lets_a_reader_role_through_both_policies(script: Script) -> None:
    """The one exception to the wall is a SELECT policy and a term in the wall's USING, no more."""
    script.op.isolate_table("api_tokens", reader_role="tenantry_authenticator")
    rule = f'"organization_id" = {RULE}'
    assert script.statements[3:6] == [
        'create policy "api_tokens_reader" on "api_tokens" as permissive for select '
        'to "tenantry_authenticator" using (true)',
        'create policy "api_tokens_tenant" on "api_tokens" as permissive for all to public '
        f"using ({rule}) with check ({rule})",
        'create policy "api_tokens_tenant_wall" on "api_tokens" as restrictive for all to public '
        f"using ({rule} or current_user = 'tenantry_authenticator'::name) with check ({rule})",
    ]
    assert 'grant select on table "api_tokens" to "tenantry_authenticator"' in script.statements


def test_isolate_table_names_schema_and_column(script: Script) -> None:
    """A table in another schema is qualified, and the root table compares its own id."""
    script.op.isolate_table("organizations", column="id", schema="shop")
    assert script.statements[1] == 'alter table "shop"."organizations" enable row level security'
    assert f'using ("id" = {RULE}) with check ("id" = {RULE})' in script.statements[3]
    assert '"shop"."organizations" alter column "id" set statistics 1' in script.statements[-1]


def test_expose_table_undoes_isolate_table_grants_first(script: Script) -> None:
    """What isolate_table made goes in reverse, so that nobody has access without a wall."""
    script.op.expose_table("api_tokens", reader_role="tenantry_authenticator")
    assert script.text == dedent("""\
        revoke all on table "api_tokens" from "tenantry_app";

        revoke all on table "api_tokens" from "tenantry_authenticator";

        do $tenantry$
        begin
          if exists (select from pg_catalog.pg_roles
                     where rolname = 'tenantry_maintenance') then
            revoke all on table "api_tokens" from "tenantry_maintenance";
          end if;
        end
        $tenantry$;

        drop policy if exists "api_tokens_tenant_wall" on "api_tokens";

        drop policy if exists "api_tokens_tenant" on "api_tokens";

        drop policy if exists "api_tokens_reader" on "api_tokens";

        alter table "api_tokens" no force row level security;

        alter table "api_tokens" disable row level security;

        do $tenantry$
        begin
          alter table "api_tokens" alter column "organization_id" set statistics -1;
        exception when feature_not_supported then
          raise warning 'the statistics of % stay as they are: %', '"api_tokens"', sqlerrm;
        end
        $tenantry$;""")


def test_settings_are_defined_empty_and_undefined_again(script: Script) -> None:
    """Both settings are quoted part by part, since `current_user` alone is a keyword."""
    script.op.define_tenant_settings()
    script.op.undefine_tenant_settings()
    define, undefine = script.statements
    assert define == dedent("""\
        do $tenantry$
        declare
          setting text;
        begin
          foreach setting in array array['"app"."current_organization"', \
'"app"."current_user"'] loop
            execute pg_catalog.format('alter database %I set %s = ''''',
              pg_catalog.current_database(), setting);
          end loop;
        exception when insufficient_privilege then
          raise warning 'the settings are not defined for this database, which % may not do: the \
session layer defines them on each new connection, and a DBA can do it with \
psql -f "$(tenantry sql roles)"',
            current_user;
        end
        $tenantry$""")
    assert "execute pg_catalog.format('alter database %I reset %s'," in undefine


@pytest.mark.parametrize(
    ("role", "rendered"),
    [("owner", '"owner"'), ('a"b', '"a""b"'), ("100%", '"100%"'), ("a:b\\c", '"a:b\\c"')],
)
def test_assume_role_quotes_whatever_the_role_is_called(
    script: Script, role: str, rendered: str
) -> None:
    """A role's name is an identifier and never anything else."""
    script.op.assume_role(role)
    assert script.text == f"set local role {rendered};"


def test_assume_owner_takes_the_configured_owner_and_none_the_login() -> None:
    """The owner is the configured role; None goes back to the role that connected."""
    script = Script(ADOPTER)
    script.op.assume_owner()
    script.op.assume_role(None)
    assert script.text == 'set local role "the ""owner""";\n\nset local role none;'


def test_maintenance_log_can_only_be_inserted_into(script: Script) -> None:
    """The maintenance role writes who and why; when and which login are the database's to say."""
    script.op.create_maintenance_log()
    script.op.drop_maintenance_log()
    assert script.text == dedent("""\
        create table maintenance_log (
          id uuid not null default gen_random_uuid(),
          logged_at timestamptz not null default statement_timestamp(),
          login text not null default session_user,
          actor text not null,
          reason text not null,
          constraint pk_maintenance_log primary key (id),
          constraint ck_maintenance_log_actor check (btrim(actor) <> ''),
          constraint ck_maintenance_log_reason check (btrim(reason) <> '')
        );

        revoke all on table maintenance_log from public;

        do $tenantry$
        begin
          if exists (select from pg_catalog.pg_roles
                     where rolname = 'tenantry_maintenance') then
            grant insert (actor, reason) on table maintenance_log to "tenantry_maintenance";
          end if;
        end
        $tenantry$;

        drop table maintenance_log;""")


def test_roles_are_created_then_joined_then_given_their_rights(script: Script) -> None:
    """One statement for each step; the last two give the owner its functions and version table."""
    script.op.create_tenancy_roles(["web"], maintenance_logins=["ops"], schemas=["billing"])
    statements = script.statements
    assert [statement for statement in statements if not statement.startswith("do ")] == [
        'alter default privileges for role "tenantry_owner" '
        "revoke execute on functions from public",
        'alter table "alembic_version" owner to "tenantry_owner";',
    ]
    assert len(statements) == 11
    assert "if session_user = 'web' then" in statements[0]
    assert (
        "foreach role in array array['tenantry_owner', 'tenantry_app', 'tenantry_authenticator']"
        in statements[1]
    )
    assert 'create role "tenantry_maintenance" nologin bypassrls;' in statements[2]
    assert 'grant "tenantry_app" to "web";' in statements[5]
    assert 'grant "tenantry_maintenance" to "ops";' in statements[6]
    assert "foreach schema in array array[current_schema(), 'billing'] loop" in statements[7]


def test_login_is_admitted_only_where_it_is_no_member_yet(script: Script) -> None:
    """A login that is missing, or may not be admitted, is a warning that says what to do."""
    script.op.create_tenancy_roles(["web"])
    assert script.statements[5] == dedent("""\
        do $tenantry$
        begin
          if not pg_catalog.pg_has_role('web', 'tenantry_app', 'member') then
            grant "tenantry_app" to "web";
          end if;
        exception
          when unique_violation then
            null;
          when undefined_object or insufficient_privilege then
            raise warning 'login % is no member of % yet: %. Mend that, then: grant % to %',
              'web', 'tenantry_app', sqlerrm,
              pg_catalog.quote_ident('tenantry_app'), pg_catalog.quote_ident('web');
        end
        $tenantry$""")


def test_roles_admit_the_logins_of_the_environment_unless_the_revision_names_some() -> None:
    """`run_migrations` hands on the logins of the URLs; an empty list admits nobody."""
    logins = MigrationLogins(application=("web",), maintenance=("ops",))
    script = Script(logins=logins)
    script.op.create_tenancy_roles()
    assert 'grant "tenantry_app" to "web";' in script.text
    assert 'grant "tenantry_maintenance" to "ops";' in script.text
    script = Script(logins=logins)
    script.op.create_tenancy_roles([], maintenance_logins=[])
    assert 'grant "tenantry_app" to' not in script.text
    assert 'grant "tenantry_maintenance" to' not in script.text


def test_release_takes_rights_and_leaves_roles(script: Script) -> None:
    """Roles belong to the server: this database's version table, defaults and grants go back."""
    script.op.release_tenancy_roles(schemas=["billing"])
    assert script.text == dedent("""\
        alter table "alembic_version" owner to session_user;

        alter default privileges for role "tenantry_owner" grant execute on functions to public;

        do $tenantry$
        declare
          role text;
          schema text;
        begin
          for role, schema in
            select r.rolname, s.name
            from pg_catalog.pg_roles as r
            cross join pg_catalog.unnest(array[current_schema(), 'billing']) as s (name)
            where r.rolname = any (array['tenantry_owner', 'tenantry_app', \
'tenantry_authenticator', 'tenantry_maintenance'])
          loop
            execute pg_catalog.format('revoke all on schema %I from %I', schema, role);
          end loop;
        end
        $tenantry$;""")


def test_hostile_names_stay_inside_their_quotes() -> None:
    """Quotes, percent signs, colons, backslashes and the block's tag are characters of a name."""
    script = Script(ADOPTER)
    script.op.isolate_table('a "b" :c', schema="100%")
    assert script.statements[-2] == dedent("""\
        do $tenantry_$
        begin
          if exists (select from pg_catalog.pg_roles
                     where rolname = '$tenantry$') then
            grant select, insert, update, delete on table "100%"."a ""b"" :c" to "$tenantry$";
          end if;
        end
        $tenantry_$""")
    assert (
        'grant select, insert, update, delete on table "100%"."a ""b"" :c" to "app\'s 100%"'
        in script.statements
    )
    assert script.statements[-1] == dedent("""\
        do $tenantry$
        begin
          alter table "100%"."a ""b"" :c" alter column "account_id" set statistics 1;
        exception when feature_not_supported then
          raise warning 'the statistics of % stay as they are: %', '"100%"."a ""b"" :c"', sqlerrm;
        end
        $tenantry$;""")
    script.op.create_tenancy_roles()
    assert "array['the \"owner\"', 'app''s 100%', 'auth:\\n']" in script.text


def test_version_table_is_the_one_that_alembic_was_given() -> None:
    """A version table of another name, in a schema, passes to the owner all the same."""
    script = Script(version_table="applied", version_table_schema="meta")
    script.op.create_tenancy_roles()
    assert script.statements[-1] == 'alter table "meta"."applied" owner to "tenantry_owner";'
