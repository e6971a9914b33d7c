"""Tables under attack as each surface names them: mapped classes, tables, or bare names."""

from typing import Any, Final

from sqlalchemy import Column, Text, and_, bindparam, cast, column, select, table
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.orm import registry
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import UserDefinedType

from tenantry.testing.attacks_rows import Row, Target

_DIALECT: Final = PGDialect_psycopg2()  # type: ignore[no-untyped-call]


class _NamedType(UserDefinedType[Any]):
    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class Relation:
    """A target as one surface names it: what statements are made of."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def entity(self) -> Any:
        """What `select`, `insert`, `update` and `delete` take."""
        return self.target.table

    def column(self, key: str) -> Any:
        """Return the column."""
        return self.target.table.c[key]

    def name(self, key: str) -> str:
        """Return what DO UPDATE SET calls the column."""
        return key

    def value(self, row: Row, key: str) -> Any:
        """Return the row's value in a column."""
        return row.values[key]

    def assigned(self, row: Row, keys: tuple[str, ...]) -> dict[Any, Any]:
        """Return what `values()` takes."""
        return {self.column(key): self.value(row, key) for key in keys}

    def is_row(self, row: Row) -> Any:
        """Return the condition that is true for this row alone."""
        keys = dict.fromkeys((*self.target.identity, self.target.tenant))
        return and_(*(self.column(key) == self.value(row, key) for key in keys))

    def is_owned_like(self, row: Row) -> Any:
        """Return the condition that is true for all rows of this row's tenant."""
        tenant = self.target.tenant
        return self.column(tenant) == self.value(row, tenant)

    def owners(self) -> Any:
        """Return the query for the tenant of each row."""
        return select(cast(self.column(self.target.tenant), Text)).select_from(self.entity)


class RawRelation(Relation):
    """A target of which only names are known; values are text, cast by the server."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._names = {c.key: quoted_name(c.name, quote=True) for c in target.table.columns}
        schema = target.table.schema
        self._table = table(
            quoted_name(target.table.name, quote=True),
            *(column(name) for name in self._names.values()),
            schema=None if schema is None else quoted_name(schema, quote=True),
        )

    @property
    def entity(self) -> Any:
        """The table by its name."""
        return self._table

    def column(self, key: str) -> Any:
        """Return the column by its name."""
        return self._table.c[self._names[key]]

    def name(self, key: str) -> str:
        """Return the column's name."""
        return self._names[key]

    def value(self, row: Row, key: str) -> Any:
        """Return the value's text, cast to the column's type."""
        return cast(bindparam(None, row.texts[key], Text), _NamedType(self.target.types[key]))


class MappedRelation(Relation):
    """A target as a mapped class."""

    def __init__(self, target: Target, mapped: type[Any]) -> None:
        super().__init__(target)
        self.mapped = mapped

    @property
    def entity(self) -> Any:
        """The class."""
        return self.mapped

    def column(self, key: str) -> Any:
        """Return the class's attribute."""
        return getattr(self.mapped, attribute(key))

    def assigned(self, row: Row, keys: tuple[str, ...]) -> dict[Any, Any]:
        """Return what `values()` takes: names of attributes."""
        return {attribute(key): self.value(row, key) for key in keys}

    def owners(self) -> Any:
        """Return the query for whole objects, as applications write it."""
        return select(self.mapped)


def attribute(key: str) -> str:
    """Return the mapped attribute of a column; prefixed, since a column may be called anything."""
    return f"column_{key}"


def map_table(mapping: registry, target: Target) -> type[Any]:
    """Return a new class mapped on the table, next to any that the application has."""
    mapped_table = target.table
    mapped = type(mapped_table.name, (), {"tenant_key": target.tenant})
    identity: list[Column[Any]] = list(mapped_table.primary_key.columns)
    mapping.map_imperatively(
        mapped,
        mapped_table,
        column_prefix="column_",
        primary_key=identity or list(mapped_table.columns),
    )
    return mapped


def written(statement: Any) -> tuple[str, dict[str, Any]]:
    """Return a statement of raw relations as psycopg2 takes it."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), dict(compiled.params)
