"""Searches inside a tenant: their operations, their SQL, and their place in autogenerate."""

from collections.abc import Iterator
from textwrap import dedent
from typing import Any, Final

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority
from sqlalchemy import DDL, MetaData, text

from tenantry.alembic.operations import migration_tenancy
from tenantry.config import TenancyConfig
from tenantry.rls import (
    Match,
    Search,
    create_policy,
    qualified_name,
    quote_identifier,
    quote_literal,
)
from tenantry.search import declared_searches

# A search's function is known by its comment, which tells the definition.
_SEARCHES: Final = text("""
select p.proname, pg_catalog.obj_description(p.oid, 'pg_proc') as description
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where n.nspname = coalesce(cast(:schema as text), current_schema())
  and pg_catalog.starts_with(pg_catalog.obj_description(p.oid, 'pg_proc'), 'tenantry search: ')
order by p.proname
""")
_ATTRIBUTES: Final = (
    "rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication"
)


@Operations.register_operation("create_tenant_search")
class CreateTenantSearchOp(MigrateOperation):
    """Creates a function that searches one column of the bound tenant's rows, by its index."""

    def __init__(self, search: Search) -> None:
        """Take the search."""
        self.search = search

    @classmethod
    def create_tenant_search(
        cls,
        operations: Operations,
        name: str,
        table_name: str,
        column: str,
        *,
        match: Match,
        type: str,  # noqa: A002 - the word that SQL and Alembic have for it
        detail: str | None = None,
        schema: str | None = None,
        tenant_column: str | None = None,
        rows: int = 100,
    ) -> Any:
        """Create a function that returns those rows of the bound tenant that a search finds.

        The function belongs to a role of its own, `<name>_searcher`, which cannot log in, may
        SELECT from this table alone and stands behind the wall like everybody else; only the
        application's role may call it. `isolate_table` has walled the table off before.

        Args:
            operations: supplied by Alembic.
            name: of the function, which is made in the table's schema.
            table_name: whose rows it returns.
            column: which is searched.
            match: `equals`, `between`, `equals_ignoring_case`, `contains_text`, `contains`,
                `key_equals` or `words`; docs/search.md says what each of them means.
            type: of the column, without modifiers; an enum or citext with its schema.
            detail: the key of `key_equals`, the text search configuration of `words`.
            schema: of the table.
            tenant_column: of the table, if it is not the configured one.
            rows: how many rows the planner shall expect.

        Raises:
            UnsearchableError: the match is not for columns of this type, or not needed for them.
        """
        search = Search(
            name=name,
            table=table_name,
            column=column,
            match=match,
            type=type,
            detail=detail,
            schema=schema,
            tenant_column=tenant_column or migration_tenancy(operations).tenant_column,
            rows=rows,
        )
        return operations.invoke(cls(search))

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("create_tenant_search", self.search.schema, self.search.name)

    def reverse(self) -> "DropTenantSearchOp":
        """Return the operation that undoes this one."""
        search = self.search
        return DropTenantSearchOp(search.name, search.table, schema=search.schema, search=search)


@Operations.register_operation("drop_tenant_search")
class DropTenantSearchOp(MigrateOperation):
    """Drops a search: the function, its policy and its role's rights; the role stays."""

    def __init__(
        self,
        name: str,
        table_name: str,
        *,
        schema: str | None = None,
        search: Search | None = None,
    ) -> None:
        """Take the names, and the search where it is known and can be made again."""
        self.name = name
        self.table_name = table_name
        self.schema = schema
        self.search = search

    @classmethod
    def drop_tenant_search(
        cls, operations: Operations, name: str, table_name: str, *, schema: str | None = None
    ) -> Any:
        """Drop what `create_tenant_search` made; its role, which belongs to the server, stays."""
        return operations.invoke(cls(name, table_name, schema=schema))

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("drop_tenant_search", self.schema, self.name)

    def reverse(self) -> CreateTenantSearchOp:
        """Return the operation that undoes this one."""
        if self.search is None:
            raise NotImplementedError(f"what search {self.name!r} looked for is not known")
        return CreateTenantSearchOp(self.search)


@Operations.implementation_for(CreateTenantSearchOp)
def _create_tenant_search(operations: Operations, operation: CreateTenantSearchOp) -> None:
    for statement in create_search(operation.search, migration_tenancy(operations)):
        operations.execute(statement)


@Operations.implementation_for(DropTenantSearchOp)
def _drop_tenant_search(operations: Operations, operation: DropTenantSearchOp) -> None:
    for statement in drop_search(
        operation.name, operation.table_name, operation.schema, migration_tenancy(operations)
    ):
        operations.execute(statement)


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_searches(
    context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]
) -> None:
    """Add an operation for each search that the models declare otherwise than the database has it.

    What goes, goes first, since a table that is searched cannot be dropped; what comes, comes last.
    """
    connection, metadata = context.connection, context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return
    declared = {
        (search.schema, search.name): search
        for search in declared_searches(metadata)
        if search.schema in schemas
    }
    found = {
        (schema, name): Search.described(description, name=name, schema=schema)
        for schema in schemas
        for name, description in connection.execute(_SEARCHES, {"schema": schema})
    }
    goes = [search for key, search in found.items() if declared.get(key) != search]
    upgrade_ops.ops[:0] = [CreateTenantSearchOp(search).reverse() for search in goes]
    comes = [search for key, search in declared.items() if found.get(key) != search]
    upgrade_ops.ops.extend(map(CreateTenantSearchOp, comes))


@renderers.dispatch_for(CreateTenantSearchOp)
def render_create_tenant_search(_context: AutogenContext, operation: CreateTenantSearchOp) -> str:
    """Render the operation into a revision file."""
    search = operation.search
    arguments = [repr(value) for value in (search.name, search.table, search.column)]
    arguments += [
        f"{key}={value!r}"
        for key, value in (
            ("match", search.match),
            ("type", search.type),
            ("detail", search.detail),
            ("schema", search.schema),
            ("tenant_column", search.tenant_column),
            ("rows", search.rows),
        )
        if value is not None
    ]
    return f"op.create_tenant_search({', '.join(arguments)})"


@renderers.dispatch_for(DropTenantSearchOp)
def render_drop_tenant_search(_context: AutogenContext, operation: DropTenantSearchOp) -> str:
    """Render the operation into a revision file."""
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.drop_tenant_search({operation.name!r}, {operation.table_name!r}{schema})"


def create_search(search: Search, config: TenancyConfig) -> Iterator[DDL]:
    """Yield the statements that create a search, once its table and role are found fit for it."""
    table = qualified_name(search.table, search.schema)
    role = quote_identifier(search.role)
    role_text = quote_literal(search.role)
    policy = search.policy(config)
    yield _check_table(search, table, policy.name)
    yield _admit_searcher(search, config)
    yield _ddl(f"grant select on table {table} to {role}")
    yield _ddl(create_policy(policy, table))
    yield _ddl(search.function())
    function = search.signature
    yield _ddl(f"comment on function {function} is {quote_literal(search.description)}")
    yield _ddl(f"revoke all on function {function} from public")
    yield _ddl(f"grant execute on function {function} to {quote_identifier(config.app_role)}")
    yield _ddl(f"alter function {function} owner to {role}")
    yield _as_login(
        f"""
          execute pg_catalog.format('revoke create on schema %I from %I', place, {role_text});
          {_dismissal(search.name, config)}
        """,
        search.schema,
    )


def drop_search(
    name: str, table_name: str, schema: str | None, config: TenancyConfig
) -> Iterator[DDL]:
    """Yield the statements that drop a search, its policy and its role's rights."""
    table, role = qualified_name(table_name, schema), quote_identifier(Search.role_of(name))
    yield _as_login(
        f"""
          {_admission(name, config)}
          set local role {role};
          drop function {qualified_name(name, schema)};
          set local role none;
          execute pg_catalog.format('revoke usage on schema %I from {role}', place);
          {_dismissal(name, config)}
        """,
        schema,
    )
    policy = quote_identifier(Search.policy_of(name, table_name))
    yield _ddl(f"drop policy {policy} on {table}")
    yield _ddl(f"revoke select on table {table} from {role}")


def _admission(name: str, config: TenancyConfig) -> str:
    """Return what lets the owner become the searcher for a moment, to hand a function over.

    No longer, since the searcher's policies are for its members too: up to PostgreSQL 15 a member
    cannot do without what it inherits.
    """
    role, owner = quote_literal(Search.role_of(name)), quote_literal(config.owner_role)
    return f"""
          if not pg_catalog.pg_has_role({owner}, {role}, 'member') then
            execute pg_catalog.format('grant %I to %I', {role}, {owner})
              || case when pg_catalog.current_setting('server_version_num')::integer < 160000
                   then '' else ' with inherit false, set true' end;
            perform pg_catalog.set_config('tenantry.admitted', {role}, true);
          end if;
    """.strip()


def _dismissal(name: str, config: TenancyConfig) -> str:
    """Return what ends the membership; one that somebody else has granted stays."""
    role, owner = quote_literal(Search.role_of(name)), quote_literal(config.owner_role)
    return f"""
          if pg_catalog.current_setting('tenantry.admitted', true) = {role} then
            execute pg_catalog.format('revoke %I from %I', {role}, {owner});
          end if;
    """.strip()


def _check_table(search: Search, table: str, policy: str) -> DDL:
    """Return the block that refuses a table or column that is not what the search takes it for."""
    relation = f"{quote_literal(table)}::pg_catalog.regclass"
    subject = f"{search.table}.{search.column}"
    return _block(f"""
        declare
          declared constant oid := {quote_literal(search.type)}::pg_catalog.regtype;
          found oid;
          other text;
        begin
          select a.atttypid into found from pg_catalog.pg_attribute as a
          where a.attrelid = {relation} and a.attname = {quote_literal(search.column)};
          if found is distinct from declared then
            raise datatype_mismatch using message = pg_catalog.format(
              'column %s is of type %s, and its search is declared for %s',
              {quote_literal(subject)}, pg_catalog.format_type(found, null), declared::regtype);
          end if;
          -- Operators of other types are somebody's own, and could tell of each row.
          select pg_catalog.format_type(t.oid, null) into other
          from pg_catalog.pg_type as c
          join pg_catalog.pg_type as t on t.oid = case c.typcategory when 'A' then c.typelem
                                                                     else c.oid end
          where c.oid = declared
            and t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
            and t.typtype <> 'e'
            and not exists (
              select from pg_catalog.pg_depend as d
              join pg_catalog.pg_extension as e on e.oid = d.refobjid and e.extname = 'citext'
              where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid
                and d.deptype = 'e');
          if other is not null then
            raise feature_not_supported using message = pg_catalog.format(
              'column %s cannot be searched: %s is neither built in, nor an enum, nor citext',
              {quote_literal(subject)}, other);
          end if;
          if not exists (select from pg_catalog.pg_class as c
                         where c.oid = {relation} and c.relrowsecurity and c.relforcerowsecurity)
            or not exists (select from pg_catalog.pg_policy as p
                           where p.polrelid = {relation} and not p.polpermissive
                             and p.polroles = '{{0}}' and p.polcmd = '*')
          then
            raise invalid_table_definition using message = pg_catalog.format(
              'table %s has no wall, and a search is no substitute: op.isolate_table() first',
              {quote_literal(table)});
          end if;
          select p.polname into other from pg_catalog.pg_policy as p
          where p.polrelid = {relation} and not p.polpermissive and p.polroles = '{{0}}'
            and p.polname::text collate "C" < {quote_literal(policy)} limit 1;
          if other is not null then
            raise invalid_object_definition using message = pg_catalog.format(
              'restrictive policy %I of %s comes before %I, and keeps it from the index: rename it',
              other, {quote_literal(table)}, {quote_literal(policy)});
          end if;
        end
    """)


def _admit_searcher(search: Search, config: TenancyConfig) -> DDL:
    """Return the block that makes the role, as whoever connected, and lets it own the function."""
    role, owner = quote_literal(search.role), quote_literal(config.owner_role)
    return _as_login(
        f"""
          if not exists (select from pg_catalog.pg_roles where rolname = {role}) then
            begin
              create role {quote_identifier(search.role)} nologin;
            exception
              -- Another database of the server may be migrated at this moment: its role will do.
              when duplicate_object or unique_violation then
                null;
              when insufficient_privilege then
                raise insufficient_privilege using message = pg_catalog.format(
                  'role %I is missing, which %I may not create: a DBA can do it with '
                  'create role %1$I; grant %1$I to %3$I', {role}, session_user, {owner});
            end;
          end if;
          if exists (select from pg_catalog.pg_roles
                     where rolname = {role} and ({_ATTRIBUTES}))
            or exists (select from pg_catalog.pg_auth_members as m
                       join pg_catalog.pg_roles as r on r.oid = m.member
                       where r.rolname = {role})
          then
            raise invalid_role_specification using message = pg_catalog.format(
              'role %I may more than a search may: it must not log in, have any attribute or be a '
              'member of anything', {role});
          end if;
          {_admission(search.name, config)}
          execute pg_catalog.format('grant usage, create on schema %I to %I', place, {role});
        """,
        search.schema,
    )


def _as_login(body: str, schema: str | None) -> DDL:
    """Return a block that runs as whoever connected, who may make roles and grant on schemas."""
    place = "current_schema()" if schema is None else quote_literal(schema)
    return _block(f"""
        declare
          before constant text := current_user;
          place constant text := {place};
        begin
          set local role none;
          {body.strip()}
          if before <> session_user then
            execute pg_catalog.format('set local role %I', before);
          end if;
        end
    """)


def _block(body: str) -> DDL:
    """Return an anonymous block, between dollar signs that no name inside it can close."""
    tag = "$tenantry$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return _ddl(f"do {tag}\n{dedent(body).strip()}\n{tag}")


def _ddl(sql: str) -> DDL:
    """Return the statement as it stands: DDL() looks for percent signs, but not for parameters."""
    return DDL(sql.replace("%", "%%"))  # type: ignore[no-untyped-call]
