"""Searches declared beside the models: typed, composed with selects, the same rows in each mode.

A predicate whose operator is not leakproof searches no index under row-level security. A
`TenantSearch` gives it one, by a function that the migrations create (`op.create_tenant_search`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar
from typing import cast as typing_cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Dialect,
    Enum,
    Function,
    MetaData,
    Numeric,
    Select,
    String,
    Table,
    Text,
    bindparam,
    cast,
    func,
    inspect,
    select,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute, Mapper, aliased
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.exceptions import ConfigurationError, UnsearchableError
from tenantry.models import tenant_table
from tenantry.rls import LONGEST_VALUE, Match, Search

_DIALECT: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]
_KEY: Final = "tenantry_searches"

Entity = TypeVar("Entity")


class TenantSearch(Generic[Entity]):
    """Finds rows of the bound tenant by an index, and none of another tenant's.

    Declared once, beside the model; Alembic's autogenerate then writes the operation. Called with
    values, it returns an alias of the entity, which a select reads in its place:

        customers_named = TenantSearch("find_customers_by_name", Customer, Customer.name,
                                       match="contains_text")
        found = customers_named("ann")
        session.scalars(select(found).where(found.active).order_by(found.name).limit(20))

    Where explicit filters are rendered (modes `filters` and `both`) the same condition is written
    into the statement and confined by them: the same rows, without the function.
    """

    def __init__(
        self,
        name: str,
        entity: type[Entity],
        attribute: InstrumentedAttribute[Any],
        *,
        match: Match,
        type: str | None = None,  # noqa: A002 - the word that SQL has for it
        detail: str | None = None,
        rows: int = 100,
        keep_plan: bool = False,
        config: TenancyConfig = DEFAULT_CONFIG,
    ) -> None:
        """Declare the search and add it to the metadata of the entity's table.

        Args:
            name: of the function, which is in the table's schema.
            entity: the mapped class of the rows, which has a table of its own.
            attribute: the mapped column that is searched.
            match: how; docs/search.md says what each of them means.
            type: of the column as SQL writes it, by default what its SQLAlchemy type says; citext
                needs its schema.
            detail: the key of `key_equals`, the text search configuration of `words`.
            rows: how many rows the planner shall expect.
            keep_plan: let the server keep the plan of an earlier call, which saves planning each
                one; docs/search.md says where that is safe.
            config: names the tenant column.

        Raises:
            ConfigurationError: the entity's table has no tenant, or its searches one such already.
            UnsearchableError: the match is not for columns of this type, or not needed for them.
        """
        mapper: Mapper[Entity] = inspect(entity)
        table = mapper.local_table
        declared = tenant_table(table, config) if isinstance(table, Table) else None
        if not isinstance(table, Table) or declared is None or mapper.inherits is not None:
            raise ConfigurationError(
                f"search {name!r}: {entity.__name__} is not mapped to one tenant table of its own"
            )
        self._entity = entity
        self.table: Final = table
        self._column: Any = mapper.columns[attribute.key]
        kind = self._column.type
        self.search: Final = Search(
            name=name,
            table=table.name,
            column=self._column.name,
            match=match,
            type=type or kind.compile(_DIALECT),
            detail=detail,
            schema=table.schema,
            tenant_column=declared.column,
            rows=rows,
            keep_plan=keep_plan,
        )
        searches = table.metadata.info.setdefault(_KEY, {})
        if searches.setdefault((table.schema, name), self.search) != self.search:
            raise ConfigurationError(f"search {name!r} is declared twice, and differently")

    def __call__(self, *values: Any) -> type[Entity]:
        """Return an alias of the entity with the rows that the search finds for these values.

        Args:
            values: one, or the lowest and the highest for `between`. Nothing equals None. A value
                for `contains_text` is text, not a pattern.

        Raises:
            UnsearchableError: a value is longer than 8 kB, text where a list is wanted, or there
                are too few or too many.
        """
        wanted = len(self.search.arguments)
        if len(values) != wanted:
            values_taken = "1 value" if wanted == 1 else f"{wanted} values"
            raise UnsearchableError(
                f"search {self.search.name!r} takes {values_taken}, not {len(values)}"
            )
        if isinstance(self._column.type, ARRAY) and isinstance(values[0], str):
            # Its characters would be looked for one by one.
            raise UnsearchableError(
                f"search {self.search.name!r} is of an array: pass a list, such as [{values[0]!r}]"
            )
        if any(_size(value) > LONGEST_VALUE for value in values):
            raise UnsearchableError(
                f"search {self.search.name!r} was asked for a value of more than {LONGEST_VALUE} "
                "bytes, which no index is there for: shorten it"
            )
        arguments = [
            cast(bindparam(None, value, type_=kind, unique=True), kind)
            for value, kind in zip(values, self._types(), strict=True)
        ]
        columns = [sql_column(column.name, column.type) for column in self.table.c]
        rows = _Found(self, arguments).table_valued(*columns)
        return typing_cast("type[Entity]", aliased(self._entity, rows, adapt_on_names=True))

    def query(self, arguments: Sequence[Any]) -> Select[Any]:
        """Return the search as a plain query, which whoever executes it has to confine."""
        return select(self.table).where(self._predicate(arguments)).correlate(None)

    def _types(self) -> list[TypeEngine[Any]]:
        as_column = self.search.match in {"equals", "between", "contains"}
        kind = _without_modifiers(self._column.type) if as_column else Text()
        return [kind for _ in self.search.arguments]

    def _predicate(self, arguments: Sequence[Any]) -> ColumnElement[bool]:
        """Return the condition as a plain query has it."""
        column, value = self._column, arguments[0]
        condition: ColumnElement[bool]
        match self.search.match:
            case "equals":
                condition = column.bool_op("=")(value)
            case "between":
                condition = column.between(value, arguments[1])
            case "equals_ignoring_case":
                condition = func.lower(column) == func.lower(value)
            case "contains_text":
                escaped = func.regexp_replace(value, r"([\\%_])", r"\\\1", "g")
                condition = column.ilike(func.concat("%", escaped, "%"))
            case "contains":
                condition = column.bool_op("@>")(value)
            case "key_equals":
                condition = column.op("->>")(self.search.detail) == value
            case "words":
                configuration = cast(self.search.detail, postgresql.REGCONFIG)
                condition = column.bool_op("@@")(func.websearch_to_tsquery(configuration, value))
        return condition


def declared_searches(metadata: MetaData) -> Iterator[Search]:
    """Yield the searches that models of this metadata declare."""
    yield from metadata.info.get(_KEY, {}).values()


class _Found(Function[Any]):
    """The function's call; where filters are rendered, the plain query, which they confine."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - as the base class has it
        *Function._traverse_internals,
        ("declared", InternalTraversal.dp_plain_obj),
    ]

    def __init__(self, declared: TenantSearch[Any], arguments: Sequence[Any]) -> None:
        search = declared.search
        schema = () if search.schema is None else (quoted_name(search.schema, quote=True),)
        super().__init__(quoted_name(search.name, quote=True), *arguments, packagenames=schema)
        self.declared = declared

    def get_children(self, **kwargs: Any) -> Iterable[Any]:
        """Name the table too: whoever looks for tenant tables in a statement finds it."""
        return (*super().get_children(**kwargs), self.declared.table)

    def _compiler_dispatch(self, visitor: Any, **kwargs: Any) -> str:
        if not getattr(visitor, "tenant_filtered", False):
            called: str = visitor.visit_function(self, **kwargs)
            return called
        query = self.declared.query(list(self.clauses))
        literal = kwargs.get("literal_binds", False)
        return f"({visitor.process(query, asfrom=True, literal_binds=literal)})"


def _without_modifiers(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type without a precision or length, to which a cast would cut a value down."""
    if isinstance(kind, ARRAY):
        return ARRAY(_without_modifiers(kind.item_type))
    if isinstance(kind, Numeric):
        return Numeric()
    if isinstance(kind, String) and not isinstance(kind, (Enum, postgresql.CITEXT)):
        return Text()
    return kind


def _size(value: object) -> int:
    """Return how many bytes a value has at least, as text."""
    if isinstance(value, (list, tuple, dict)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return len(str(value).encode())
