"""`tenantry status`: whether the database keeps tenants apart for a login."""

import json
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tenantry.cli.targets import connect, named_database, named_settings, named_tenancy
from tenantry.config import Settings
from tenantry.probe import Isolation, probe


def status(
    url: Annotated[
        str | None,
        typer.Option(help="Database to look at, in place of DATABASE_URL.", metavar="URL"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="The project's TenancyConfig; the default names if none is named.",
            metavar="MODULE:ATTRIBUTE",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the database keeps tenants apart for the application's login.

    Exits with 1 if it does not.
    """
    tenancy, settings = named_tenancy(config), named_settings()
    target = named_database(url, settings)
    with closing(connect(target, target)) as connection:
        isolation = probe(connection, tenancy)
    if as_json:
        typer.echo(json.dumps(_as_dict(isolation, settings), default=sorted))
    else:
        _print(isolation, settings)
    if not isolation.enforced:
        raise typer.Exit(1)


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
