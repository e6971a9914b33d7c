"""How long the audit takes: on the project's own schema, and on 2,000 tables with 10,000 policies.

    python -m tenantry.testing sh -ec 'alembic upgrade head; python -m bench.audit'

Needs DATABASE_URL (the application's login) and MIGRATION_DATABASE_URL (the owner's) of a database
that may be filled; `make bench-audit` makes one and throws it away.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import psycopg2
import typer
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy.engine import URL

from tenantry.audit import run_audit
from tenantry.audit.catalogue import checks, facts, listing
from tenantry.audit.parameters import AuditConfig
from tenantry.audit.transaction import prepared
from tenantry.config import Settings, libpq_url
from tenantry.environment import application_url, migration_url

_REPEATS = 5
_SHOWN = 12
_RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"

# Five policies on each table: the two of the design, and three that differ behind the wall.
_FILL = """
do $fill$
declare
  number integer;
  command text;
begin
  for number in {first}..{last} loop
    execute pg_catalog.format('create table bench.t%s (organization_id uuid not null, id uuid, '
      'primary key (organization_id, id), unique (organization_id, id))', number);
    execute pg_catalog.format('alter table bench.t%s enable row level security, '
      'force row level security', number);
    execute pg_catalog.format('create policy tenant on bench.t%s using ({rule})', number);
    execute pg_catalog.format('create policy wall on bench.t%s as restrictive using ({rule})',
      number);
    foreach command in array array['select', 'update', 'delete'] loop
      execute pg_catalog.format('create policy %s_too on bench.t%s for %s using ({rule})',
        command, number, command);
    end loop;
    execute pg_catalog.format('grant select, insert, update, delete on bench.t%s to tenantry_app',
      number);
  end loop;
end
$fill$
"""

# No wall, policies that differ, a key without the tenant, a privilege too many; not forced.
_SPOIL = """
do $spoil$
begin
  for number in {first}..{last} loop
    execute pg_catalog.format('drop policy wall on bench.t%s', number);
    execute pg_catalog.format('alter policy tenant on bench.t%s using (true)', number);
    execute pg_catalog.format('alter policy select_too on bench.t%s using (true)', number);
    execute pg_catalog.format('alter table bench.t%s no force row level security, '
      'add unique (id)', number);
    execute pg_catalog.format('grant truncate on bench.t%s to tenantry_app', number);
  end loop;
end
$spoil$
"""


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    with closing(psycopg2.connect(libpq_url(url))) as connection:
        yield connection


def _fill(connection: Connection, tables: int, step: int = 200) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("create schema bench")
        cursor.execute("grant usage on schema bench to tenantry_app")
    rule = _RULE.replace("'", "''")
    for first in range(1, tables + 1, step):
        # A transaction for each part: every table takes locks until its end.
        with connection, connection.cursor() as cursor:
            last = min(first + step - 1, tables)
            cursor.execute(_FILL.format(first=first, last=last, rule=rule))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("analyze")


def _measure(connection: Connection, name: str) -> dict[str, Any]:
    """Print and return what the audit takes, and what each of its queries does, slowest first."""
    taken = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        report = run_audit(connection)
        taken.append((time.perf_counter() - begun) * 1000)
    typer.echo(
        f"{name}: {statistics.median(taken):.0f} ms "
        f"(the median of {_REPEATS}; {min(taken):.0f} to {max(taken):.0f} ms), "
        f"{report.tables} tables, {len(report.checks)} checks, {len(report.findings)} findings"
    )
    queries = _measure_each(connection)
    for query, milliseconds in list(queries.items())[:_SHOWN]:
        typer.echo(f"  {milliseconds:7.1f} ms  {query}")
    return {
        "schema": name,
        "tables": report.tables,
        "checks": len(report.checks),
        "findings": len(report.findings),
        "milliseconds": {
            "median": statistics.median(taken),
            "least": min(taken),
            "most": max(taken),
        },
        "queries": queries,
    }


def _measure_each(connection: Connection) -> dict[str, float]:
    """Return the milliseconds that each query takes alone, the slowest first."""
    with prepared(connection, AuditConfig()) as cursor:
        # The facts once more: in the place of each there is the same value again.
        queries = {f"facts/{name}": query for name, query in facts().items()}
        queries |= {check.id: check.query for check in checks()}
        queries |= {name: listing(name) for name in ("matrix", "roles")}
        taken = {
            name: min(_time(cursor, query) for _ in range(3)) * 1000
            for name, query in queries.items()
        }
    return dict(sorted(taken.items(), key=lambda item: -item[1]))


def _time(cursor: Cursor, query: str) -> float:
    begun = time.perf_counter()
    cursor.execute(query)
    return time.perf_counter() - begun


def _spoil(connection: Connection, tables: int, step: int = 200) -> None:
    for first in range(1, tables + 1, step):
        with connection.cursor() as cursor:
            cursor.execute(_SPOIL.format(first=first, last=min(first + step - 1, tables)))


def main(
    tables: Annotated[int, typer.Option(help="Tables to make, with five policies each.")] = 2000,
    to_json: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured.", metavar="FILE")
    ] = None,
) -> None:
    """Time the audit on the project's own schema, on a large one, and where everything is wrong."""
    settings = Settings.from_environment()
    with (
        _connected(application_url(settings)) as connection,
        _connected(migration_url(settings)) as owner,
    ):
        found = [_measure(connection, "own schema")]
        begun = time.perf_counter()
        _fill(owner, tables)
        filled = time.perf_counter() - begun
        typer.echo(f"made {tables} tables and {tables * 5} policies in {filled:.0f} s")
        found.append(_measure(connection, "large schema"))
        _spoil(owner, tables)
        found.append(_measure(connection, "large schema, every table faulty"))
        server = connection.info.parameter_status("server_version")
    if to_json is not None:
        about = {"server": server, "python": platform.python_version(), "cores": os.cpu_count()}
        to_json.write_text(json.dumps({**about, "measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
