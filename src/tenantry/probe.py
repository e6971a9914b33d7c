"""The probe: does this connection's server keep tenants apart, and how is it reached."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from tenantry.config import TenancyConfig
from tenantry.rls import printed_rule


class DriverConnection(Protocol):
    """The part of a psycopg2 connection that the probe uses."""

    autocommit: bool

    def cursor(self) -> Any:
        """Open a cursor."""

    def get_backend_pid(self) -> int:
        """Return the backend's process id, as the start-up handshake told it."""


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A tenant table whose rows this role could reach across tenants, and why."""

    table: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the probe found on one connection: whether the database is a wall for this role.

    Attributes:
        database: name of the database.
        role: the role whose rights apply (`current_user`).
        server_version: as `server_version` prints it.
        settings_defined: both settings existed before the layer wrote them.
        stored_default: one of them came with a value other than '' from the role's, the
            database's or the server's configuration.
        pooled: a pooler stands between, so that backends change from transaction to transaction.
        citus: the Citus extension is installed.
        role_reasons: why the role itself would be let past row security; empty if it is not.
        tables: number of tenant tables that exist.
        reachable_tables: number of those on which the role holds any privilege.
        open_tables: those of them that are not walled off.
    """

    database: str
    role: str
    server_version: str
    settings_defined: bool
    stored_default: bool
    pooled: bool
    citus: bool
    role_reasons: tuple[str, ...]
    tables: int
    reachable_tables: int
    open_tables: tuple[OpenTable, ...]

    @property
    def enforced(self) -> bool:
        """True if the database keeps this role inside one tenant in every tenant table."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each reason why the wall is missing; empty where it stands."""
        reasons = list(self.role_reasons)
        if self.tables == 0:
            reasons.append("the database has no tenant table; run `alembic upgrade head`")
        elif self.reachable_tables == 0:
            reasons.append(f"role {self.role!r} holds no privilege on any tenant table")
        tables: dict[tuple[str, ...], list[str]] = {}
        for table in self.open_tables:
            tables.setdefault(table.reasons, []).append(table.table)
        reasons += [f"{', '.join(names)}: {', '.join(why)}" for why, names in tables.items()]
        return tuple(reasons)


# Every name is schema-qualified, so that nothing in the connection's search_path can answer in
# place of the catalog.
_PROBE: Final = """
with recursive
  me as (
    select r.oid, r.rolname from pg_catalog.pg_roles r
    where r.rolname in (current_user, session_user)
  ),
  reachable as (
    select r.oid, r.rolname, r.rolsuper, r.rolbypassrls,
      r.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
        as reaches_the_files
    from pg_catalog.pg_roles r
    where exists (select from me where pg_catalog.pg_has_role(me.oid, r.oid, 'member'))
  ),
  tenant_tables as (
    select c.oid, c.relname, n.nspname, c.relowner, c.relrowsecurity, c.relforcerowsecurity,
      pg_catalog.quote_ident(a.attname) as tenant_column
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p')
      and n.nspname not in ('pg_catalog', 'information_schema')
      and n.nspname not like 'pg\\_toast%%' and n.nspname not like 'pg\\_temp%%'
      and (a.attname = %(tenant_column)s
        or (a.attname = 'id' and c.relname = %(root_table)s
            and not exists (
              select from pg_catalog.pg_attribute t
              where t.attrelid = c.oid and t.attname = %(tenant_column)s
                and not t.attisdropped)))
  ),
  reached as (
    select * from tenant_tables t
    where pg_catalog.has_schema_privilege(t.nspname, 'usage')
      and (pg_catalog.has_table_privilege(t.oid, 'select, insert, update, delete, truncate')
        or pg_catalog.has_any_column_privilege(t.oid, 'select, insert, update'))
  ),
  policies as (
    select p.polrelid, p.polpermissive, p.polcmd, 0 = any (p.polroles) as to_public,
      pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_text,
      pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_text,
      pg_catalog.replace(%(rule)s, '{column}', t.tenant_column) as rule,
      pg_catalog.replace(%(wrapped_rule)s, '{column}', t.tenant_column) as wrapped_rule
    from pg_catalog.pg_policy p join reached t on t.oid = p.polrelid
  ),
  judged as (
    select polrelid, polpermissive, polcmd, to_public,
      using_text in (rule, wrapped_rule) as using_is_rule,
      using_text = pg_catalog.concat('(', rule, ' OR (CURRENT_USER = ',
        pg_catalog.quote_literal(%(authenticator)s), '::name))')
        and current_user <> %(authenticator)s as using_is_exempt_rule,
      using_text is null as no_using,
      check_text in (rule, wrapped_rule) as check_is_rule,
      check_text is null as no_check
    from policies
  ),
  walls as (
    select t.oid,
      coalesce(bool_or(not j.polpermissive and j.polcmd = '*' and j.to_public
        and (j.using_is_rule and (j.no_check or j.check_is_rule)
          or j.using_is_exempt_rule and j.check_is_rule)), false) as walled,
      coalesce(bool_and(not j.polpermissive
        or (j.no_using or j.using_is_rule) and (j.no_check or j.check_is_rule)
          and not (j.no_using and j.no_check)), true) as all_permissive_are_the_rule
    from reached t left join judged j on j.polrelid = t.oid
    group by t.oid
  ),
  verdicts as (
    select pg_catalog.format('%%I.%%I', t.nspname, t.relname) as name,
      pg_catalog.array_remove(array[
      case when not t.relrowsecurity then 'row security is not enabled' end,
      case when not t.relforcerowsecurity then 'row security is not forced' end,
      case when t.relrowsecurity and not pg_catalog.row_security_active(t.oid)
        then 'row security is not active for this role' end,
      case when exists (select from reachable r where r.oid = t.relowner)
        then 'the role owns it, or is a member of its owner' end,
      case when t.relrowsecurity and not w.walled and not w.all_permissive_are_the_rule
        then 'its policies let other rows through' end,
      case when pg_catalog.has_table_privilege(t.oid, 'truncate')
        then 'the role may TRUNCATE it' end
    ], null) as reasons
    from reached t join walls w on w.oid = t.oid
  )
select
  pg_catalog.current_database()::text, current_user::text,
  pg_catalog.current_setting('server_version'),
  pg_catalog.pg_backend_pid(),
  pg_catalog.current_setting(%(organization_setting)s, true),
  pg_catalog.current_setting(%(user_setting)s, true),
  exists (select from pg_catalog.pg_extension where extname = 'citus'),
  array(
    select case when r.rolsuper then pg_catalog.format('role %%I is superuser', r.rolname)
      when r.reaches_the_files
        then pg_catalog.format('role %%I reaches the server''s own files', r.rolname)
      else pg_catalog.format('role %%I has BYPASSRLS', r.rolname) end
      || case when r.oid in (select oid from me) then ''
         else ' and this login can become it' end
    from reachable r
    where r.rolsuper and r.oid in (select oid from me)
      or (r.rolsuper or r.rolbypassrls or r.reaches_the_files)
        and not exists (select from reachable s join me on me.oid = s.oid where s.rolsuper)
    order by r.rolname
  )::text[],
  (select count(*) from tenant_tables),
  (select count(*) from reached),
  (select pg_catalog.json_agg(pg_catalog.json_build_array(v.name, v.reasons) order by v.name)
   from verdicts v where v.reasons <> '{}')
"""


def probe(connection: DriverConnection, config: TenancyConfig) -> Isolation:
    """Return what the server says of this connection, in one round trip.

    The connection must be outside a transaction: a new one is. Reads the catalog and two settings
    and changes nothing. A pooler is recognised by a backend that is not the one of the start-up
    handshake.

    Source: PostgreSQL manual, 5.9 Row Security Policies, 9.28.1 (`current_setting` with
    missing_ok in place of SHOW, which fails for an undefined setting).
    """
    rule = printed_rule("{column}", config)
    before, _, after = rule.partition(" = ")
    parameters = {
        "tenant_column": config.tenant_column,
        "root_table": config.root_table,
        "rule": rule,
        "wrapped_rule": f'{before} = ( SELECT {after[:-1]} AS "nullif"))',
        "authenticator": config.authenticator_role,
        "organization_setting": config.organization_setting,
        "user_setting": config.user_setting,
    }
    autocommit = connection.autocommit
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(_PROBE, parameters)
            row = cursor.fetchone()
    finally:
        connection.autocommit = autocommit
    database, role, version, pid, organization, user, citus, reasons, tables, reached, open_ = row
    return Isolation(
        database=database,
        role=role,
        server_version=version,
        settings_defined=organization is not None and user is not None,
        stored_default=bool(organization or user),
        pooled=pid != connection.get_backend_pid(),
        citus=citus,
        role_reasons=tuple(reasons),
        tables=tables,
        reachable_tables=reached,
        open_tables=tuple(OpenTable(name, tuple(why)) for name, why in open_ or ()),
    )
