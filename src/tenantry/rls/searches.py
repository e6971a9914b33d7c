"""Searches at index speed inside a tenant: a policy, a role and a function for each.

Row-level security runs a policy before any operator that could tell of a row, so an operator that
is not leakproof searches no index. The conditions of one policy are of one rank, though: where the
search itself stands in a restrictive policy beside the tenant rule, the planner may give both to
the index. That policy is for a role of its own, which owns the function that the application calls.
The wall is for this role too: nothing is excepted, and the function can show no row that the
application could not read.

Source: PostgreSQL's `src/backend/optimizer/README`, "Security-level constraints on qual clauses".
"""

import json
import re
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final, Literal, get_args

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.exceptions import UnsearchableError
from tenantry.models import current_tenant
from tenantry.rls.policies import (
    Policy,
    policy_name,
    qualified_name,
    quote_identifier,
    quote_literal,
)

Match = Literal[
    "equals", "between", "equals_ignoring_case", "contains_text", "contains", "key_equals", "words"
]

# Bounds the depth to which a value could make an operator descend, long before a stack ends.
LONGEST_VALUE: Final = 8192

_COMMENT: Final = "tenantry search: "
_TEXTS: Final = frozenset({"text", "varchar"})
# With these `=` and ranges are leakproof: the wall lets their indexes be searched as it is.
_LEAKPROOF: Final = frozenset(
    {"smallint", "integer", "bigint", "uuid", "date", "timestamp", "timestamptz", "boolean"}
    | {"real", "double precision", "bytea"}
    | _TEXTS
)
_ELEMENTS: Final = _LEAKPROOF - {"bytea"} | {"numeric"}
_CORE: Final = _LEAKPROOF | {"numeric", "jsonb", "tsvector"}
_NAMED: Final = frozenset({"key_equals", "words"})
# Served by an index of B-tree's kind, which finds a few rows by tenant and value together.
_LOOKUPS: Final = frozenset({"equals", "between", "equals_ignoring_case", "key_equals"})
_ALIASES: Final = {
    "character varying": "varchar",
    "decimal": "numeric",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "int": "integer",
    "float": "double precision",
}
_IDENTIFIER: Final = r'(?:[a-z_][a-z0-9_]*|"(?:[^"\x00]|"")+")'
_TYPE: Final = re.compile(rf"((?:{_IDENTIFIER}\.)?{_IDENTIFIER}|double precision)(\[\])?")
_MODIFIER: Final = re.compile(r"\s*\([0-9, ]*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One way of searching one column of a tenant table, made of operators that keep quiet.

    An operator may be asked about other tenants' rows before the tenant rule is, where the planner
    finds that cheaper. So it must not raise an error, or say anything else, that depends on what a
    row holds: docs/search.md has the list and the reasons.

    Attributes:
        name: of the function.
        table: whose rows it returns.
        column: which is searched.
        match: how.
        type: of the column, as SQL writes it; an enum's or citext's with its schema.
        detail: the key of `key_equals`, the text search configuration of `words`.
        schema: of the table and the function; None for the current one.
        tenant_column: of the table.
        rows: how many rows the planner shall expect.
        keep_plan: let the server keep the plan that it made for an earlier call.

    Raises:
        UnsearchableError: the match is not for columns of this type, or not needed for them.
    """

    name: str
    table: str
    column: str
    match: Match
    type: str
    detail: str | None = None
    schema: str | None = None
    tenant_column: str = DEFAULT_CONFIG.tenant_column
    rows: int = 100
    keep_plan: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", _normalized(self.type))
        if self.match not in get_args(Match):
            raise self._refused(f"{self.match!r} is no match: use {', '.join(get_args(Match))}")
        if (self.detail is not None) != (self.match in _NAMED):
            raise self._refused(
                "key_equals needs a key and words a text search configuration, as detail; the "
                "others need none"
            )
        if not _TYPE.fullmatch(self.type):
            raise self._refused(f"{self.type!r} is no type: write a name, with its schema if any")
        if not self.name or len(self.role.encode()) > 63:
            raise self._refused("the name of its role, <name>_searcher, has 10 to 63 bytes")
        if self.keep_plan and self.match not in _LOOKUPS:
            raise self._refused(
                f"a kept plan of {self.match} would suit tenants of one size alone; plans can be "
                f"kept of {', '.join(sorted(_LOOKUPS))}"
            )
        if self.rows < 1:
            raise self._refused("the planner expects one row or more")
        self._check_type()

    @classmethod
    def described(cls, description: str, *, name: str, schema: str | None) -> "Search":
        """Return the search that a function's comment describes."""
        return cls(name=name, schema=schema, **json.loads(description.removeprefix(_COMMENT)))

    @staticmethod
    def role_of(name: str) -> str:
        """Return the name of the role that owns a search's function and that its policy is for."""
        return f"{name}_searcher"

    @staticmethod
    def policy_of(name: str, table: str) -> str:
        """Return the name of a search's policy, which comes before the wall's."""
        return policy_name(table, f"_search_{_digest(name)[:4]}")

    @property
    def role(self) -> str:
        """Return the name of the role that owns the function and that the policy is for."""
        return self.role_of(self.name)

    @property
    def description(self) -> str:
        """Return the definition, as the function's comment tells it."""
        told = {key: value for key, value in asdict(self).items() if key not in {"name", "schema"}}
        return _COMMENT + json.dumps(told)

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """Return name and type of each argument of the function."""
        if self.match == "between":
            return (("lowest", self.type), ("highest", self.type))
        return (("wanted", self.type if self.match in {"equals", "contains"} else "text"),)

    @property
    def signature(self) -> str:
        """Return the function's quoted name with the types of its arguments."""
        types = ", ".join(type_ for _, type_ in self.arguments)
        return f"{qualified_name(self.name, self.schema)}({types})"

    def policy(self, config: TenancyConfig = DEFAULT_CONFIG) -> Policy:
        """Return the policy that holds the search: restrictive, so that it can only take rows away.

        Its name comes before the wall's, since restrictive policies are applied in the order of
        their names, and the conditions of the first one alone reach an index.
        """
        rule = f"{quote_identifier(self.tenant_column)} = {current_tenant(config)}"
        return Policy(
            self.policy_of(self.name, self.table),
            f"{rule} and {self._predicate()}",
            None,
            "select",
            permissive=False,
            roles=(self.role,),
        )

    def function(self, place: str, config: TenancyConfig = DEFAULT_CONFIG) -> str:
        """Return the statement that creates the function.

        Its statements are fixed, and name the schema of all that they use: no search_path has a say
        in what they mean. The values travel to the policy in settings that end with the transaction
        at the latest. It is planned for the tenant that calls: a plan that was kept from a tenant
        with few rows, or from none, may read all of another's. That takes PL/pgSQL, and a value in
        the query, without which there is no plan but the kept one. The value has no name there,
        which could be a column's too. Where plans are kept, a call for nobody makes none.

        Args:
            place: the quoted name of the table's schema.
            config: names the setting of the tenant.
        """
        arguments = ", ".join(f"{name} {type_}" for name, type_ in self.arguments)
        values = ",\n    ".join(
            f"pg_catalog.set_config('{self._setting(number)}', case when pg_catalog.octet_length("
            f"{name}::pg_catalog.text) operator(pg_catalog.<=) {LONGEST_VALUE} then '=' "
            f"operator(pg_catalog.||) {name}::pg_catalog.text else '' end, true)"
            for number, (name, _) in enumerate(self.arguments, start=1)
        )
        table = f"{place}.{quote_identifier(self.table)}"
        planned, nobody = "  set plan_cache_mode = force_custom_plan\n", ""
        if self.keep_plan:
            planned = ""
            nobody = (
                "  if nullif(pg_catalog.current_setting("
                f"{quote_literal(config.organization_setting)}, true), '') is null then\n"
                "    return;\n  end if;\n"
            )
        body = (
            f"begin\n{nobody}  perform {values};\n"
            f"  return query select item.* from {table} as item where $1 is not null;\nend"
        )
        tag = "$search$"
        while tag in body:
            tag = f"{tag[:-1]}_$"
        return (
            f"create function {place}.{quote_identifier(self.name)}({arguments})\n"
            f"  returns setof {table}\n"
            f"  language plpgsql stable strict security definer rows {self.rows}\n"
            f"  set search_path = pg_catalog, pg_temp\n"
            f"{planned}"
            f"as {tag}\n{body}\n{tag}"
        )

    def _predicate(self) -> str:
        column = quote_identifier(self.column)
        value = self._value(1, self.arguments[0][1])
        match self.match:
            case "equals":
                schema = self.type.rpartition(".")[0] if _is_citext(self.type) else "pg_catalog"
                return _equals(column, value, schema)
            case "between":
                return (
                    f"{column} operator(pg_catalog.>=) (select {value}) and {column} "
                    f"operator(pg_catalog.<=) (select {self._value(2, self.type)})"
                )
            case "equals_ignoring_case":
                return _equals(f"pg_catalog.lower({column})", f"pg_catalog.lower({value})")
            case "contains_text":
                # Whoever writes the pattern could end it in a backslash, which is an error in the
                # very row that matches it so far: an oracle. So the value is no pattern.
                escaped = rf"pg_catalog.regexp_replace({value}, '([\\%_])', '\\\1', 'g')"
                return (
                    f"{column} operator(pg_catalog.~~*) (select '%' operator(pg_catalog.||) "
                    f"{escaped} operator(pg_catalog.||) '%')"
                )
            case "contains":
                return f"{column} operator(pg_catalog.@>) (select {value})"
            case "key_equals":
                key = (
                    f"({column} operator(pg_catalog.->>) {quote_literal(self.detail or '')}::text)"
                )
                return _equals(key, value)
            case "words":
                configuration = f"{quote_literal(self.detail or '')}::pg_catalog.regconfig"
                return (
                    f"{column} operator(pg_catalog.@@) "
                    f"(select pg_catalog.websearch_to_tsquery({configuration}, {value}))"
                )

    def _setting(self, number: int) -> str:
        """Return the setting in which an argument travels; each search has its own."""
        return f"tenantry.search_{_digest(self.name)[:8]}_{number}"

    def _value(self, number: int, type_: str) -> str:
        """Return the expression of an argument in the policy; without one NULL, nothing's equal."""
        # With the first sign, which is not the value's, a value of '' is not taken for none.
        text = (
            "pg_catalog.substr(nullif(pg_catalog.current_setting("
            f"'{self._setting(number)}', true), ''), 2)"
        )
        return text if type_ in _TEXTS else f"{text}::{type_}"

    def _check_type(self) -> None:
        element, array = self.type.removesuffix("[]"), self.type.endswith("[]")
        core = element in _CORE
        match self.match:
            case "equals" if not array and (self.type == "numeric" or not core):
                if self.type == "citext":
                    raise self._refused("write citext with its schema, where its operators are")
            case "equals" | "between" if self.type in _LEAKPROOF:
                raise self._refused(
                    f"= and ranges of {self.type} are leakproof, so row-level security lets an "
                    "index led by the tenant column be searched: use a plain query"
                )
            case "between" if self.type == "numeric":
                pass
            case "equals_ignoring_case" | "contains_text" if self.type in _TEXTS:
                pass
            case "contains" if self.type == "jsonb" or (
                array and (element in _ELEMENTS or not core)
            ):
                pass
            case "key_equals" if self.type == "jsonb":
                pass
            case "words" if self.type == "tsvector":
                pass
            case _:
                raise self._refused(
                    f"{self.match} of {self.type} is not known to keep quiet about the rows it is "
                    "asked about: docs/search.md has the list of what is"
                )

    def _refused(self, why: str) -> UnsearchableError:
        return UnsearchableError(f"search {self.name!r} on {self.table}.{self.column}: {why}")


def _equals(expression: str, value: str, schema: str = "pg_catalog") -> str:
    """Return the condition that a value is met, as the narrowest range.

    Behind row-level security the planner may not know which values are frequent, and takes one of a
    column with few of them for one that singles out little or nothing: it would read all rows of a
    tenant for the rare value of an enum. Of a range it always expects little.

    Source: PostgreSQL, `statistic_proc_security_check`, `DEFAULT_RANGE_INEQ_SEL`.
    """
    return " and ".join(
        f"{expression} operator({schema}.{bound}) (select {value})" for bound in (">=", "<=")
    )


def _normalized(type_: str) -> str:
    """Return the type without its modifiers, under the name that the lists have for it."""
    bare = _MODIFIER.sub("", type_).strip()
    if '"' in bare:
        return bare
    bare = bare.lower()
    element = bare.removesuffix("[]")
    return _ALIASES.get(element, element) + bare[len(element) :]


def _is_citext(type_: str) -> bool:
    return type_.rpartition(".")[2] in {"citext", '"citext"'}


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()
