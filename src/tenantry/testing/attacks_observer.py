"""Looks at the rows of both sides from outside of the attacks, and tells whether they changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    Column,
    CompoundSelect,
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    exists,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import TenantId
from tenantry.exceptions import ConfigurationError
from tenantry.models import tenant_column
from tenantry.rls import qualified_name
from tenantry.testing.attacks_rows import Key, Row, Target

_TYPES = text("""
select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
from pg_catalog.pg_attribute a
where a.attrelid = cast(:relation as regclass) and a.attnum > 0 and not a.attisdropped
""")

# Columns of an index over expressions, and of a partial one, are no target for ON CONFLICT.
# ON CONFLICT takes neither an exclusion constraint nor a deferrable one by name.
_KEYS = text("""
select i.relname,
  case when x.indimmediate and not x.indisexclusion then c.conname end,
  case when x.indexprs is null and x.indpred is null then
    array(select a.attname from unnest(x.indkey::int[]) with ordinality as k(attnum, position)
          join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum
          where k.position <= x.indnkeyatts order by k.position)::text[]
  else '{}'::text[] end
from pg_catalog.pg_index x
join pg_catalog.pg_class i on i.oid = x.indexrelid
left join pg_catalog.pg_constraint c on c.conindid = x.indexrelid and c.contype in ('p', 'u')
where x.indrelid = cast(:relation as regclass) and (x.indisunique or x.indisexclusion)
order by i.relname
""")

_DEFERRABLE = text("""
select exists (select from pg_catalog.pg_constraint c
               where c.conrelid = cast(:relation as regclass) and c.condeferrable)
""")

# Rows of the victim's among which one is looked for that the attacker has nothing in common with.
_CANDIDATES: Final = 20


class Observer:
    """Looks at the rows of both sides, from outside of the attack.

    Args:
        engine: of a role that sees every tenant. One that is bound by row security will do, since
            each look names the tenant; it must not be the engine under attack.
        metadata: of the mapped tables.
        config: what the database calls its tenants.
    """

    def __init__(
        self, engine: Engine, metadata: MetaData, config: TenancyConfig = DEFAULT_CONFIG
    ) -> None:
        self._engine = engine
        self._config = config
        self.tables: dict[str, Table] = {
            table.fullname: table
            for table in metadata.sorted_tables
            if tenant_column(table, config) is not None
        }

    def targets(self, attacker: TenantId, victim: TenantId) -> dict[str, Target]:
        """Return every tenant table with a row of each side, by the table's full name.

        Raises:
            ConfigurationError: one side has no row in a table, or the attacker has the same values
                in a key, so that attacks would prove nothing; or there is no tenant table.
        """
        if not self.tables:
            raise ConfigurationError("the metadata has no tenant table: nothing to attack")
        own = self._rows(attacker, 1)
        foreign = self._rows(victim, _CANDIDATES)
        keys = self._keys()
        with self._looking(attacker) as connection:
            chosen = {
                name: self._distinct(connection, table, attacker, foreign[name][0], keys[name])
                for name, table in self.tables.items()
            }
        targets: dict[str, Target] = {}
        with self._looking(victim) as connection:
            for name, table in self.tables.items():
                relation = {"relation": qualified_name(table.name, table.schema)}
                by_name = {column.name: column.key for column in table.columns}
                targets[name] = Target(
                    table=table,
                    tenant=self._tenant_column(table).key,
                    types={
                        by_name[column]: type_name
                        for column, type_name in connection.execute(_TYPES, relation)
                        if column in by_name
                    },
                    keys=keys[name],
                    deferrable=connection.execute(_DEFERRABLE, relation).scalar_one(),
                    own=own[name][0][0],
                    own_count=own[name][1],
                    victim=chosen[name],
                )
        return targets

    def digest(self, tenant: TenantId) -> dict[str, str]:
        """Return a digest over all of a tenant's rows, for each table."""
        with self._looking(tenant) as connection:
            found = connection.execute(self._digests, {"tenant": tenant})
            return {row[0]: row[1] for row in found}

    @cached_property
    def _digests(self) -> CompoundSelect[Any]:
        parts = []
        for name, table in self.tables.items():
            column = self._tenant_column(table)
            line = func.concat_ws("\x1f", *(_shown(column) for column in table.columns))
            lines = func.string_agg(line, aggregate_order_by(literal("\n"), line))
            parts.append(
                select(literal(name), func.md5(func.coalesce(lines, ""))).where(
                    column == bindparam("tenant", type_=column.type)
                )
            )
        return union_all(*parts)

    def _keys(self) -> dict[str, tuple[Key, ...]]:
        keys: dict[str, tuple[Key, ...]] = {}
        with self._engine.connect() as connection:
            for name, table in self.tables.items():
                relation = {"relation": qualified_name(table.name, table.schema)}
                by_name = {column.name: column.key for column in table.columns}
                keys[name] = tuple(
                    Key(index, constraint, tuple(by_name.get(c, c) for c in columns))
                    for index, constraint, columns in connection.execute(_KEYS, relation)
                )
        return keys

    def _distinct(
        self,
        connection: Connection,
        table: Table,
        attacker: TenantId,
        candidates: list[Row],
        keys: tuple[Key, ...],
    ) -> Row:
        """Return the first row whose keys the attacker does not have as well."""
        tenant = self._tenant_column(table)
        shared = ""
        for row in candidates:
            for key in keys:
                columns = [c for c in key.columns if c != tenant.key and c in row.values]
                if not columns or any(row.values[column] is None for column in columns):
                    continue
                same = (table.c[column] == row.values[column] for column in columns)
                if connection.scalar(select(exists().where(tenant == attacker, *same))):
                    shared = key.name
                    break
            else:
                return row
        raise ConfigurationError(
            f"attacker and victim have the same values in key {shared!r} of tenant table "
            f"{table.fullname!r}, so that a probe could not tell whose it found: give them others"
        )

    def _rows(self, tenant: TenantId, limit: int) -> dict[str, tuple[list[Row], int]]:
        rows: dict[str, tuple[list[Row], int]] = {}
        with self._looking(tenant) as connection:
            for name, table in self.tables.items():
                columns = list(table.columns)
                keys = [column.key for column in columns]
                found = connection.execute(
                    select(
                        *columns,
                        *(cast(c, Text).label(f"t{n}") for n, c in enumerate(columns)),
                        func.count().over(),
                    )
                    .where(self._tenant_column(table) == tenant)
                    # The fullest row has the most references to attack.
                    .order_by(func.num_nonnulls(*columns).desc(), *table.primary_key.columns)
                    .limit(limit)
                ).all()
                if not found:
                    raise ConfigurationError(
                        f"tenant {tenant} has no row in tenant table {name!r}, so that attacks on "
                        "it would prove nothing: seed one (tenantry.testing.attacks_seeds)"
                    )
                rows[name] = (
                    [
                        Row(
                            dict(zip(keys, row, strict=False)),
                            dict(zip(keys, row[len(keys) :], strict=False)),
                        )
                        for row in found
                    ],
                    found[0][-1],
                )
        return rows

    def _tenant_column(self, table: Table) -> Column[Any]:
        column = tenant_column(table, self._config)
        if column is None:
            raise ConfigurationError(f"table {table.fullname!r} has no tenant column")
        return column

    @contextmanager
    def _looking(self, tenant: TenantId) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            _name_tenant(connection, self._config, tenant)
            yield connection


def _name_tenant(connection: Connection, config: TenancyConfig, tenant: TenantId) -> None:
    connection.execute(
        select(func.pg_catalog.set_config(config.organization_setting, str(tenant), True))
    )


def _shown(column: Column[Any]) -> Any:
    # concat_ws() skips NULLs, so that a value could move to the next column unnoticed.
    return func.coalesce(cast(column, Text), "\x1e")
