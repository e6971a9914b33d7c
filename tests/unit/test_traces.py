"""Which statements are known to leave nothing behind in their session."""

import pytest
from psycopg2.extensions import AsIs

from tenantry.traces import leaves_traces

TRACELESS = [
    "select 1",
    "SELECT test_sets.id FROM test_sets WHERE test_sets.id IN (%(id_1)s, %(id_2)s)",
    "SELECT count(*) AS count_1, max(t.x) FROM t WHERE lower(t.name) = %(name)s",
    "INSERT INTO test_sets (id, name) VALUES (%(id)s, %(name)s) RETURNING test_sets.id",
    "WITH n AS \n(INSERT INTO t (a) VALUES (1) RETURNING t.a) SELECT n.a FROM n",
    "INSERT INTO app.t (a) SELECT p0::VARCHAR(30) FROM (VALUES (%(a)s, 0)) AS imp_sen(p0, n)",
    "UPDATE t SET a=%(a)s WHERE (t.b OR t.c)",
    "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u)",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "SAVEPOINT sa_savepoint_1",
    "ROLLBACK TO SAVEPOINT sa_savepoint_1",
]
TRACES = [
    "select pg_advisory_lock(1)",
    "select PG_ADVISORY_LOCK (1)",
    "select pg_catalog . pg_advisory_lock\n(1)",
    "select mine.count(1)",
    "select mine . count(1)",
    'select "count"(1)',
    'select "odd "(1)',
    "select f$(1)",
    "select pg_advisory_lock/**/(1)",
    "select pg_advisory_lock -- \n(1)",
    "select U&\"f!005fg\" uescape '!' (1)",
    "select x\u00a0lower(1)",
    "select \u017fum(1)",
    "select 1; listen x",
    "select 1 into temporary t",
    "select 1 as insert into temporary t",
    "create temporary table t ()",
    "prepare p as select 1",
    "declare c cursor with hold for select 1",
    "listen x",
    "set search_path = x",
    "execute p",
    "call p()",
    "do $$ begin end $$",
    "select set_config('app.x', '1', false)",
    "  /* */ select 1",
    "",
]


@pytest.mark.parametrize("query", TRACELESS)
def test_plain_query_leaves_nothing(query: str) -> None:
    """Names, values and functions that only look at their arguments leave nothing."""
    assert not leaves_traces(query, {"id": 1})
    assert not leaves_traces(query, (1,))
    assert not leaves_traces(query)


@pytest.mark.parametrize("query", TRACES)
def test_whatever_else_could_leave_something(query: str) -> None:
    """Commands, unknown functions, and whatever is not understood could leave something."""
    assert leaves_traces(query)


def test_what_cannot_be_looked_at_could_leave_something() -> None:
    """Bytes, very long queries and values that render SQL of their own are not trusted."""
    assert leaves_traces(b"select 1")
    assert leaves_traces("select 1" + " " * 5000)
    assert leaves_traces("select %s", (AsIs("pg_advisory_lock(1)"),))
    assert leaves_traces("select %(a)s", {"a": AsIs("pg_advisory_lock(1)")})
    assert leaves_traces("select %s", iter([1]))
    assert leaves_traces("select %s", ([AsIs("pg_advisory_lock(1)")],))


STEADY = frozenset({"authenticate_token", "Odd"})


@pytest.mark.parametrize(
    "query",
    ["select * from authenticate_token(%s)", "select public.Authenticate_Token (1), count(*)"],
)
def test_steady_function_leaves_nothing(query: str) -> None:
    """A function of the database that promises to change nothing leaves nothing."""
    assert not leaves_traces(query, (1,), STEADY)
    assert leaves_traces(query, (1,))


@pytest.mark.parametrize(
    "query",
    [
        'select "authenticate_token"(1)',
        "select authenticate_token(pg_advisory_lock(1))",
        "select a.b.authenticate_token(1)",
        "select authenticate_token . other(1)",
        'select "Odd"(1)',
        "select Odd(1)",
        "select authenticate_token(1); listen x",
    ],
)
def test_what_is_not_that_function_could_leave_something(query: str) -> None:
    """A quoted name, another call beside it or inside of it, and a second command are not it."""
    assert leaves_traces(query, None, STEADY)
