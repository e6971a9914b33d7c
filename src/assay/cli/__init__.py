"""The `assay` command."""

import logging

import typer
from psycopg2.extensions import set_wait_callback
from sqlalchemy.exc import DBAPIError

from assay.cli import organizations, sets, tokens
from assay.cli.imports import import_file
from assay.cli.waiting import wait
from assay.exceptions import AssayError
from tenantry import TenancyError

__all__ = ["app", "main"]

app = typer.Typer(
    name="assay",
    help="Sets of tests for AI applications, kept by organization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("import")(import_file)
app.add_typer(organizations.app, name="organizations")
app.add_typer(sets.app, name="sets")
app.add_typer(tokens.app, name="tokens")


def main() -> None:
    """Run the command; an error that the user can act on is one line and exit code 1."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tenantry").setLevel(logging.INFO)
    set_wait_callback(wait)
    try:
        app(prog_name="assay")
    except (AssayError, TenancyError) as error:
        _fail(str(error))
    except DBAPIError as error:
        _fail(f"the database reports: {str(error.orig).strip().partition(chr(10))[0]}")


def _fail(message: str) -> None:
    typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
    raise SystemExit(1) from None
