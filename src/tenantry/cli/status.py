"""`tenantry status`: whether the database keeps tenants apart for a login."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import psycopg2
import typer
from rich.console import Console
from rich.table import Table

from tenantry.config import DEFAULT_CONFIG, Settings, libpq_url, parse_url
from tenantry.environment import application_url
from tenantry.exceptions import DatabaseUnreachableError
from tenantry.probe import Isolation, probe


def status(
    url: Annotated[
        str | None,
        typer.Option(help="Database to look at, in place of DATABASE_URL.", metavar="URL"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the database keeps tenants apart for the application's login.

    Exits with 1 if it does not.
    """
    settings = Settings.from_environment()
    target = parse_url(url, name="--url") if url else application_url(settings)
    isolation = _probe(libpq_url(target), target.render_as_string(hide_password=True))
    if as_json:
        typer.echo(json.dumps(_as_dict(isolation, settings), default=sorted))
    else:
        _print(isolation, settings)
    if not isolation.enforced:
        raise typer.Exit(1)


def _probe(dsn: str, shown: str) -> Isolation:
    try:
        connection = psycopg2.connect(dsn)
    except psycopg2.OperationalError as error:
        raise DatabaseUnreachableError(
            f"no connection to {shown}: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    try:
        return probe(connection, DEFAULT_CONFIG)
    finally:
        connection.close()


def _as_dict(isolation: Isolation, settings: Settings) -> dict[str, Any]:
    return {
        "enforced": isolation.enforced,
        "reasons": list(isolation.reasons),
        "mode": settings.mode,
        **asdict(isolation),
    }


def _print(isolation: Isolation, settings: Settings) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    verdict = "[green]enforced[/]" if isolation.enforced else "[red]NOT ENFORCED[/]"
    table.add_row("isolation", f"{verdict} by the database")
    table.add_row("database", isolation.database)
    table.add_row("server", f"PostgreSQL {isolation.server_version}")
    table.add_row("role", isolation.role)
    table.add_row(
        "tenant tables",
        f"{len(isolation.tenant_tables)}, {isolation.reachable_tables} open to the role",
    )
    table.add_row(
        "settings",
        "defined" if isolation.settings_defined else "undefined; the layer defines them itself",
    )
    if isolation.stored_default:
        table.add_row("", "[red]with a stored default: a forgotten tenant is silently that one[/]")
    if isolation.pooled:
        table.add_row("pooler", "in between: scope 'transaction'")
    if isolation.citus:
        table.add_row("Citus", "scope 'transaction', one command a message")
    table.add_row("mode", _consequence(isolation, settings))
    for position, reason in enumerate(isolation.reasons):
        table.add_row("" if position else "[red]why not[/]", reason)
    Console(soft_wrap=True).print(table)


def _consequence(isolation: Isolation, settings: Settings) -> str:
    if isolation.enforced:
        walls = {"filters": "explicit filters", "both": "the database and explicit filters"}
        return f"{settings.mode}: {walls.get(settings.mode, 'the database')}"
    if settings.mode == "database":
        return "database: nothing connects"
    return f"{settings.mode}: explicit filters; what they cannot confine is refused"
