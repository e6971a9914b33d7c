"""What attacks start from: a row of each side in every tenant table, and the victim's digest."""

import re
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    Column,
    CompoundSelect,
    Connection,
    Engine,
    ForeignKeyConstraint,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
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

_LENGTH: Final = re.compile(r"\((\d+)\)")
_INTEGERS: Final = {"smallint": 2**14, "integer": 2**30, "bigint": 2**62}


@dataclass(frozen=True, slots=True)
class Row:
    """One row, by column key: as SQLAlchemy reads it, and as PostgreSQL prints it."""

    values: Mapping[str, Any]
    texts: Mapping[str, str | None]

    def replaced(self, other: "Row", keys: frozenset[str]) -> "Row":
        """Return the row with another's values in some columns."""
        return Row(
            {**self.values, **{key: other.values[key] for key in keys}},
            {**self.texts, **{key: other.texts[key] for key in keys}},
        )


@dataclass(frozen=True, slots=True)
class Key:
    """A unique or exclusion index of the database, whatever the models say of it.

    Attributes:
        name: of the index.
        constraint: what ON CONFLICT calls it; None if it does not take it by name.
        columns: by their keys; none where it is over expressions, or partial.
    """

    name: str
    constraint: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A tenant table under attack.

    Attributes:
        table: as it is mapped.
        tenant: key of the column that holds the tenant.
        types: PostgreSQL's name of each column's type, by column key.
        keys: its unique indexes.
        deferrable: whether a constraint of it may be checked at the end of the transaction.
        own: a row of the attacker's.
        own_count: how many rows the attacker has.
        victim: a row of the victim's.
    """

    table: Table
    tenant: str
    types: Mapping[str, str]
    keys: tuple[Key, ...]
    deferrable: bool
    own: Row
    own_count: int
    victim: Row

    @property
    def writable(self) -> tuple[str, ...]:
        """Return the keys of the columns that an INSERT may name."""
        return tuple(column.key for column in self.table.columns if _is_writable(column))

    @property
    def identity(self) -> tuple[str, ...]:
        """Return the keys of the columns that tell one row from another."""
        return tuple(column.key for column in self.table.primary_key.columns) or (self.tenant,)

    @property
    def harmless(self) -> str:
        """Return the key of a column that an UPDATE can set to itself."""
        settled = {self.tenant, *self.identity}
        return next((key for key in self.writable if key not in settled), self.writable[0])

    @property
    def references(self) -> Mapping[str, ForeignKeyConstraint]:
        """Return the foreign keys that name more than the tenant, by name or else by columns."""
        return {
            str(key.name or ",".join(key.column_keys)): key
            for key in sorted(
                self.table.foreign_key_constraints, key=lambda key: tuple(key.column_keys)
            )
            if set(key.column_keys) != {self.tenant}
        }

    def reference(self, name: str) -> ForeignKeyConstraint:
        """Return one of the foreign keys.

        Raises:
            ConfigurationError: the table has none of that name.
        """
        if name not in self.references:
            raise ConfigurationError(f"{self.table.fullname!r} has no foreign key {name!r}")
        return self.references[name]

    def planted(self) -> Row:
        """Return the victim's row as the attacker files it: under its own name, if that can be.

        Where the tenant alone is a key, as in the root table, it stays the victim's.
        """
        if self._tenant_is_a_key():
            return self.victim
        return self.victim.replaced(self.own, frozenset({self.tenant}))

    def absent(self, tenant_tables: frozenset[str]) -> Row | None:
        """Return the planted row with other values in all keys and references; None if none can be.

        Its values exist nowhere, so that what the server answers to it tells of nobody.
        """
        sensitive = {column for key in self.keys for column in key.columns}
        for reference in self.references.values():
            names = set(reference.column_keys)
            if reference.referred_table.fullname in tenant_tables:
                sensitive |= names
            else:
                sensitive -= names
        if not self._tenant_is_a_key():
            sensitive.discard(self.tenant)
        planted = self.planted()
        changed: dict[str, Any] = {}
        for key in sorted(sensitive & set(self.types)):
            value = another(planted.values[key], self.types[key])
            if value is not None:
                changed[key] = value
        if not changed:
            return None
        texts = {key: printed(value) for key, value in changed.items()}
        return Row({**planted.values, **changed}, {**planted.texts, **texts})

    def _tenant_is_a_key(self) -> bool:
        return any(key.columns == (self.tenant,) for key in self.keys)


def _is_writable(column: Column[Any]) -> bool:
    identity = column.identity
    return column.computed is None and not (identity is not None and identity.always)


def another(value: Any, type_name: str) -> Any:
    """Return a value of the same type that exists nowhere, or None where none can be invented."""
    if isinstance(value, uuid.UUID):
        return uuid.uuid4()
    if isinstance(value, int) and type_name in _INTEGERS:
        return _INTEGERS[type_name] + secrets.randbelow(_INTEGERS[type_name] // 2)
    if isinstance(value, bytes):
        return secrets.token_bytes(len(value) or 8)
    if type(value) is str:
        # At the end, where it spoils neither a URL nor an address.
        length = _LENGTH.search(type_name)
        kept = value if length is None else value[: max(0, int(length[1]) - 16)]
        return f"{kept}{secrets.token_hex(8)}"
    return None


def printed(value: Any) -> str:
    """Return a value of `another` as PostgreSQL prints it."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


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
            ConfigurationError: one side has no row in a table, so that attacks on it would prove
                nothing; or there is no tenant table.
        """
        if not self.tables:
            raise ConfigurationError("the metadata has no tenant table: nothing to attack")
        own = self._rows(attacker)
        foreign = self._rows(victim)
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
                    keys=tuple(
                        Key(index, constraint, tuple(by_name.get(c, c) for c in columns))
                        for index, constraint, columns in connection.execute(_KEYS, relation)
                    ),
                    deferrable=connection.execute(_DEFERRABLE, relation).scalar_one(),
                    own=own[name][0],
                    own_count=own[name][1],
                    victim=foreign[name][0],
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

    def _rows(self, tenant: TenantId) -> dict[str, tuple[Row, int]]:
        rows: dict[str, tuple[Row, int]] = {}
        with self._looking(tenant) as connection:
            for name, table in self.tables.items():
                columns = list(table.columns)
                found = connection.execute(
                    select(
                        *columns,
                        *(cast(c, Text).label(f"t{n}") for n, c in enumerate(columns)),
                        func.count().over(),
                    )
                    .where(self._tenant_column(table) == tenant)
                    # The fullest row has the most references to attack.
                    .order_by(func.num_nonnulls(*columns).desc(), *table.primary_key.columns)
                    .limit(1)
                ).first()
                if found is None:
                    raise ConfigurationError(
                        f"tenant {tenant} has no row in tenant table {name!r}, so that attacks on "
                        "it would prove nothing: seed one (tenantry.testing.attacks_seeds)"
                    )
                keys = [column.key for column in columns]
                rows[name] = (
                    Row(
                        dict(zip(keys, found, strict=False)),
                        dict(zip(keys, found[len(keys) :], strict=False)),
                    ),
                    found[-1],
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
