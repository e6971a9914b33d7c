"""What text inside a statement may say, where nobody but the compiler looks at it.

SQLAlchemy renders operators, literal columns, names that are told not to be quoted and the words
of a type as they are. Each predicate here passes what can hold nothing but the one thing it is.
"""

import re
from typing import Final

_LITERAL: Final = re.compile(r"\*|\d+|[A-Za-z_][\w.]*|'[^'\\]*'")
_OPERATOR: Final = re.compile(
    r"(?!.*(--|/\*|\*/))[-+*/<>=~!@#%^&|?`]+|(not )?(like|ilike|similar to|overlaps)"
    r"|is (not )?distinct from|at time zone",
    re.IGNORECASE,
)
# Words, quoted names, arguments that are words; [] is an array, or a schema yet to be translated.
_TYPE: Final = re.compile(r'([\w. ]|"[^"]*"|\( *-?\w+( *, *-?\w+)* *\)|\[\w*\])+')
_SCHEMA_TO_TRANSLATE: Final = re.compile(r"__\[SCHEMA_\w*\]")
# They run SQL, or open a relation or a file, that they are given by name; or show statements.
_REACHING_FUNCTION: Final = re.compile(
    r"(query|table|schema|database|cursor)_to_xml.*|xpath_table|ts_stat|ts_rewrite|dblink.*"
    r"|crosstab.*|connectby|pg_read_.*|pg_ls_.*|pg_stat_file|lo_.*|loread|pg_stat_get_activity"
    r"|pg_stat_get_backend_activity|pg_stat_statements.*|pg_cursor|pg_prepared_.*|pg_logical_.*"
    r"|currtid.*|set_config",
    re.IGNORECASE,
)
# Views of the server that show rows, statements or statistics of other tenants.
_REVEALING_VIEW: Final = re.compile(
    r"pg_stats.*|pg_statistic.*|pg_stat_activity|pg_prepared_.*|pg_largeobject.*|pg_cursors"
)


def is_literal(text: str) -> bool:
    """Whether the text of a literal column is a star, a number, a name or a plain string."""
    return _LITERAL.fullmatch(text) is not None


def is_operator(text: str) -> bool:
    """Whether the text of a custom operator is an operator and nothing more."""
    return _OPERATOR.fullmatch(text.strip()) is not None


def is_type(text: str) -> bool:
    """Whether the text of a type is the name of one, with arguments that are words."""
    return _TYPE.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a name that is not to be quoted is one name."""
    return text.isidentifier() or _SCHEMA_TO_TRANSLATE.fullmatch(text) is not None


def function_reaches_out(name: str) -> bool:
    """Whether a function of the server runs SQL, or opens what it is given the name of."""
    return _REACHING_FUNCTION.fullmatch(name) is not None


def view_reveals_tenants(name: str) -> bool:
    """Whether a view of the server shows what it holds of other tenants."""
    return _REVEALING_VIEW.fullmatch(name) is not None
