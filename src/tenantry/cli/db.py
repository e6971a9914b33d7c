"""`tenantry db …`: the embedded server from the shell."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer, Login, ServerStatus, default_server

app = typer.Typer(
    help="A private PostgreSQL for development: $TENANTRY_HOME, or .tenantry in this folder.",
    no_args_is_help=True,
)

_Owner = Annotated[bool, typer.Option("--owner", help="As the migrator, which owns the database.")]
_Maintenance = Annotated[
    bool, typer.Option("--maintenance", help="As the login for work across tenants.")
]
_Superuser = Annotated[bool, typer.Option("--superuser", help="As PostgreSQL's superuser.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start() -> None:
    """Start the server, creating it the first time; harmless if it runs."""
    server = default_server()
    server.start()
    typer.echo(_sentence(server.status()))


@app.command()
def stop() -> None:
    """Stop the server and keep its data; harmless if it is stopped."""
    server = default_server()
    server.stop()
    typer.echo(f"no server of {server.home} runs")


@app.command()
def status(as_json: _Json = False) -> None:
    """Say whether the server runs, and where. Exits with 3 if it does not."""
    current = default_server().status()
    if as_json:
        typer.echo(json.dumps(asdict(current), default=str))
    else:
        typer.echo(_sentence(current))
    if not current.running:
        raise typer.Exit(3)


@app.command()
def url(
    owner: _Owner = False,
    maintenance: _Maintenance = False,
    superuser: _Superuser = False,
    libpq: Annotated[
        bool, typer.Option("--libpq", help="In the form psql reads: postgresql://…")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Print the URL of the application's login, or of another, with its password."""
    address = default_server().url(_login(owner, maintenance, superuser))
    text = libpq_url(address) if libpq else address.render_as_string(hide_password=False)
    typer.echo(json.dumps({"url": text}) if as_json else text)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="[OPTIONS] [-- PSQL OPTIONS]",
)
def psql(
    context: typer.Context,
    owner: _Owner = False,
    maintenance: _Maintenance = False,
    superuser: _Superuser = False,
) -> None:
    """Open psql as the application's login, or as another; what follows goes to psql.

    For example: tenantry db psql --owner -- -f sql/audit.sql
    """
    server = default_server()
    environment = _psql_environment(server, _login(owner, maintenance, superuser))
    program = server.psql()
    os.execve(program, [str(program), *context.args], environment)  # noqa: S606 - no shell is wanted


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the server and remove all its data."""
    server = default_server()
    if not yes:
        typer.confirm(f"Remove all data of the server in {server.home}?", abort=True)
    server.reset()
    typer.echo(f"removed the data in {server.home}")


def _login(owner: bool, maintenance: bool, superuser: bool) -> Login:
    if owner + maintenance + superuser > 1:
        raise typer.BadParameter("choose one of --owner, --maintenance and --superuser")
    if owner:
        return "owner"
    if maintenance:
        return "maintenance"
    return "superuser" if superuser else "app"


def _sentence(current: ServerStatus) -> str:
    if not current.running:
        return f"PostgreSQL {current.version} is not running: tenantry db start"
    return (
        f"PostgreSQL {current.version} runs on {current.host}:{current.port} "
        f"(process {current.pid}, data in {current.data_folder})"
    )


def _psql_environment(server: EmbeddedServer, login: Login) -> dict[str, str]:
    # The password goes through the environment, since every user can read arguments. Variables of
    # another server, such as PGSERVICE or PGSSLMODE, must not reach psql.
    address = server.url(login)
    kept = {"PGCLIENTENCODING", "PGOPTIONS", "PGTZ", "PGDATESTYLE", "PGAPPNAME"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PG") or k in kept}
    return inherited | {
        "PGHOST": str(address.host),
        "PGPORT": str(address.port),
        "PGUSER": str(address.username),
        "PGPASSWORD": str(address.password),
        "PGDATABASE": str(address.database),
    }
