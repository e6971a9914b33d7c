"""`tenantry audit`: every way in which a database's wall is down, and what mends it."""

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, cast

import psycopg2
import typer
from rich.console import Console
from rich.markdown import Markdown

from tenantry.audit import (
    AuditConfig,
    Baseline,
    Report,
    Severity,
    explanation,
    read_baseline,
    run_audit,
)
from tenantry.audit.formats import FORMATS
from tenantry.audit.parameters import DEFAULT_AUDIT
from tenantry.config import DEFAULT_CONFIG, IdType, Settings, TenancyConfig, libpq_url, parse_url
from tenantry.environment import application_url
from tenantry.exceptions import DatabaseUnreachableError, TenancyError


class Format(StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


class FailOn(StrEnum):
    """Which findings make the exit status 1: these and worse ones."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


def audit(
    url: Annotated[
        str | None,
        typer.Option(help="Database to look at, in place of DATABASE_URL.", metavar="URL"),
    ] = None,
    role: Annotated[
        str, typer.Option(help="The application's role; its members are found.")
    ] = DEFAULT_CONFIG.app_role,
    tenant_column: Annotated[
        str, typer.Option(help="Column that says whose row it is.")
    ] = DEFAULT_CONFIG.tenant_column,
    id_type: Annotated[
        str, typer.Option(help="Its type: uuid, bigint or integer.")
    ] = DEFAULT_CONFIG.id_type,
    organization_setting: Annotated[
        str, typer.Option(help="Setting that carries the tenant.")
    ] = DEFAULT_CONFIG.organization_setting,
    user_setting: Annotated[
        str, typer.Option(help="Setting that carries the user.")
    ] = DEFAULT_CONFIG.user_setting,
    root_table: Annotated[
        str | None,
        typer.Option(
            help=f"Table of tenants; default {DEFAULT_CONFIG.root_table}, if it is there."
        ),
    ] = None,
    root_column: Annotated[
        str, typer.Option(help="Its column that the setting names.")
    ] = DEFAULT_AUDIT.root_column,
    authenticator_role: Annotated[
        str, typer.Option(help="Role that looks up tokens.")
    ] = DEFAULT_CONFIG.authenticator_role,
    token_table: Annotated[
        str, typer.Option(help="Table that it may read across tenants.")
    ] = DEFAULT_AUDIT.token_table,
    schema: Annotated[
        list[str] | None, typer.Option(help="Schema to look at; all of them if none is named.")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Check to run; all of them if none is named.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    fail_on: Annotated[
        FailOn, typer.Option(help="Least severity that makes the exit status 1.")
    ] = FailOn.ERROR,
    baseline: Annotated[
        Path | None,
        typer.Option(help="TOML file of findings that are allowed, each with a reason."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(help="Print the page on a check, and look at nothing.", metavar="ID"),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Print the statements that mend what can be, as a script.")
    ] = False,
) -> None:
    """Find every way in which the database does not keep tenants apart.

    Exits with 0 if there is no finding, with 1 if there is one at or above --fail-on or a check
    could not look, with 2 if nothing was looked at.
    """
    try:
        if explain is not None:
            Console(soft_wrap=True).print(Markdown(explanation(explain)))
            return
        config = AuditConfig(
            tenancy=TenancyConfig(
                organization_setting=organization_setting,
                user_setting=user_setting,
                tenant_column=tenant_column,
                root_table=root_table or DEFAULT_CONFIG.root_table,
                id_type=cast("IdType", id_type),
                app_role=role,
                authenticator_role=authenticator_role,
            ),
            root_column=root_column,
            root_required=root_table is not None,
            token_table=token_table,
            schemas=tuple(schema or ()),
        )
        allowed = Baseline() if baseline is None else read_baseline(baseline)
        report = _audit(url, config, allowed, tuple(check or ()))
    except TenancyError as error:
        _refuse(error)
    typer.echo(_script(report) if fix else FORMATS[output.value](report).rstrip("\n"))
    if report.fails(Severity.named(fail_on)):
        raise typer.Exit(1)


def _audit(
    url: str | None, config: AuditConfig, baseline: Baseline, only: tuple[str, ...]
) -> Report:
    target = parse_url(url, name="--url") if url else application_url(Settings.from_environment())
    try:
        connection = psycopg2.connect(libpq_url(target))
    except psycopg2.OperationalError as error:
        raise DatabaseUnreachableError(
            f"no connection to {target.render_as_string(hide_password=True)}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    with closing(connection):
        return run_audit(connection, config, baseline=baseline, only=only)


def _script(report: Report) -> str:
    """Return the findings' statements in one transaction; what a person decides is a comment."""
    lines = [
        f"-- {line}"
        for line in (
            f"Mends what the audit of {_one_line(report.database)} found.",
            "Read it, then run it as a superuser or as the owner: psql -v ON_ERROR_STOP=1 -f FILE",
        )
    ]
    lines.append("begin;")
    for finding in report.findings:
        lines += ["", f"-- {_one_line(str(finding))}"]
        lines.append(finding.statement or f"-- To be decided: {_one_line(finding.remedy)}")
    return "\n".join((*lines, "", "commit;"))


def _one_line(text: str) -> str:
    """Return the text without line breaks, so that a name cannot end a comment."""
    return " ".join(text.split())


def _refuse(error: TenancyError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from None
