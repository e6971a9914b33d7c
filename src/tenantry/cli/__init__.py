"""The `tenantry` command."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from tenantry.cli import db, tasks
from tenantry.cli.audit import audit
from tenantry.cli.scripts import sql
from tenantry.cli.status import status
from tenantry.exceptions import TenancyError

__all__ = ["app", "main"]

app = typer.Typer(
    name="tenantry",
    help="Tenant isolation for PostgreSQL: servers, status and audit from the shell.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(db.app, name="db")
app.add_typer(tasks.app, name="tasks")
app.command()(status)
app.command()(audit)
app.command()(sql)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"tenantry {version('tenantry')}")
    except PackageNotFoundError:
        typer.echo("tenantry (run from its source, not installed)")
    raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; an error that the user can act on is a message and exit code 1."""
    try:
        app(prog_name="tenantry")
    except TenancyError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
