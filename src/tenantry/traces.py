"""Which statements leave nothing in their session that the next user of the connection could find.

Temporary tables, held cursors, prepared statements, subscriptions, settings and advisory locks
outlive their transaction. Each comes from a command of its own or from a function; a query made of
nothing but names, values and functions that are known leaves none of them. Known are PostgreSQL's
own that are listed here, and those of the database that promise to change nothing.
"""

import functools
import re
from typing import Final

from psycopg2.extensions import AsIs

_QUERY: Final = re.compile(r"\s*(?:select|insert|update|delete|with)\b", re.IGNORECASE)
# A name with UESCAPE does not end where its parenthesis begins; `insert` may be a column's label.
_SEVERAL: Final = re.compile(
    r";|--|/\*|\buescape\b|(?<!^insert )(?<!\(insert )\binto\b", re.IGNORECASE
)
# A command, and a harmless one: the pool's and the dialect's own, and savepoints.
_HARMLESS: Final = re.compile(
    r"(?:;|(?:select 1|show transaction isolation level|commit|rollback"
    r"|(?:savepoint|release savepoint|rollback to savepoint) \w+)\s*;?)\s*",
    re.IGNORECASE,
)
_INSERTED_INTO: Final = re.compile(r"\binsert into [\w.]+ \(", re.IGNORECASE)
_CALLED: Final = re.compile(r'((?<![\w$".])[\w$".]+|\.\s+[\w$".]+)\s*\(')
_PLAIN_CALL: Final = re.compile(r"(?:[A-Za-z_]\w*\.)?([A-Za-z_]\w*)", re.ASCII)
# What stands before a parenthesis: keywords, types, and functions that look at their arguments.
_KNOWN: Final = re.compile(
    r"all|and|any|array|as|between|by|case|conflict|distinct|else|except|exists|filter|from|ilike"
    r"|in|intersect|into|is|join|lateral|like|not|on|or|over|returning|select|set|then|union|using"
    r"|values|when|where|with|imp_sen"
    r"|char|character|decimal|float|interval|numeric|time|timestamp|varchar"
    r"|abs|array_agg|avg|bool_and|bool_or|cast|coalesce|concat|count|date_trunc|dense_rank|extract"
    r"|greatest|json_agg|jsonb_agg|least|length|lower|max|min|now|nullif|rank|round|row_number"
    r"|string_agg|substring|sum|trim|upper",
    re.IGNORECASE,
)
_LONG: Final = 4096


def leaves_traces(
    query: object, parameters: object = None, steady_functions: frozenset[str] = frozenset()
) -> bool:
    """Return whether a message could leave something in its session; False only if it cannot.

    What triggers, operators and views call is not looked at.

    Args:
        query: as it is given to a cursor.
        parameters: the values that the driver renders into it.
        steady_functions: names of functions of the database that leave nothing, as
            `Isolation.steady_functions` has them.
    """
    if not isinstance(query, str) or len(query) > _LONG or _leaves_traces(query, steady_functions):
        return True
    values = parameters.values() if isinstance(parameters, dict) else parameters
    if not isinstance(values, tuple | list | type({}.values())):
        return values is not None
    return any(_renders_itself(value) for value in values)


def _renders_itself(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(_renders_itself(item) for item in value)
    return isinstance(value, AsIs)


@functools.lru_cache(maxsize=512)
def _leaves_traces(query: str, steady_functions: frozenset[str]) -> bool:
    if _HARMLESS.fullmatch(query):
        return False
    # Names of other letters are not what they look like: case and space are another matter there.
    if not query.isascii() or not _QUERY.match(query) or _SEVERAL.search(query):
        return True
    bare = _INSERTED_INTO.sub("insert into (", query)
    return any(
        _KNOWN.fullmatch(word) is None and _called_name(word) not in steady_functions
        for word in _CALLED.findall(bare)
    )


def _called_name(word: str) -> str | None:
    """Return the name of a called function, without its schema; None where it is quoted."""
    plain = _PLAIN_CALL.fullmatch(word)
    return None if plain is None else plain[1].lower()
