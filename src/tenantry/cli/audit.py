"""`tenantry audit`: every way in which a database's wall is down, and what mends it."""

from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import psycopg2
import typer
from rich.console import Console
from rich.markdown import Markdown

from tenantry.audit import (
    AuditConfig,
    Baseline,
    Report,
    Severity,
    checks,
    explanation,
    read_baseline,
    run_audit,
)
from tenantry.audit.catalogue import summary
from tenantry.audit.formats import Format, render, render_script, require
from tenantry.audit.parameters import DEFAULT_AUDIT
from tenantry.cli.targets import connect, named_database, named_settings, named_tenancy
from tenantry.config import DEFAULT_CONFIG
from tenantry.exceptions import AuditError, ConfigurationError, TenancyError

_CONNECT_SECONDS: Final = "10"


class FailOn(StrEnum):
    """Which findings make the exit status 1: these and worse ones."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


def audit(
    url: Annotated[
        str | None,
        typer.Option(help="Database to look at, in place of DATABASE_URL.", metavar="URL"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="The project's TenancyConfig, in place of the names below that are not given.",
            metavar="MODULE:ATTRIBUTE",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="The application's role; its members are found.",
            show_default=DEFAULT_CONFIG.app_role,
        ),
    ] = None,
    tenant_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says whose row it is.", show_default=DEFAULT_CONFIG.tenant_column
        ),
    ] = None,
    id_type: Annotated[
        str | None,
        typer.Option(
            help="Its type: uuid, bigint, integer or text.", show_default=DEFAULT_CONFIG.id_type
        ),
    ] = None,
    organization_setting: Annotated[
        str | None,
        typer.Option(
            help="Setting that carries the tenant.",
            show_default=DEFAULT_CONFIG.organization_setting,
        ),
    ] = None,
    user_setting: Annotated[
        str | None,
        typer.Option(
            help="Setting that carries the user.", show_default=DEFAULT_CONFIG.user_setting
        ),
    ] = None,
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
        str | None,
        typer.Option(
            help="Role that looks up tokens.", show_default=DEFAULT_CONFIG.authenticator_role
        ),
    ] = None,
    token_table: Annotated[
        str, typer.Option(help="Table that it may read across tenants.")
    ] = DEFAULT_AUDIT.token_table,
    schema: Annotated[
        list[str] | None, typer.Option(help="Schema to look at; all of them if none is named.")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Check to run; all of them if none is named.")
    ] = None,
    style: Annotated[
        Format, typer.Option("--format", help="How the report is written.")
    ] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write the report to; the verdict is printed.", metavar="FILE"),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Least severity that makes the exit status 1.")
    ] = FailOn.ERROR,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of findings that are allowed, each with a reason.", metavar="FILE"
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(help="Print the page on a check, and look at nothing.", metavar="ID"),
    ] = None,
    list_checks: Annotated[
        bool, typer.Option("--list", help="Print what the checks are, and look at nothing.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a script that mends what can be, and no report.")
    ] = False,
) -> None:
    """Find every way in which the database does not keep tenants apart.

    Exits with 0 if there is no finding at or above --fail-on, with 1 if there is one or a check
    could not look (with --fail-on never, 0 all the same), with 2 if nothing was looked at.
    """
    try:
        if explain is not None:
            Console(soft_wrap=True).print(Markdown(explanation(explain)))
            return
        if list_checks:
            typer.echo("\n".join(_listed()))
            return
        require(style)
        tenancy = named_tenancy(config)
        given: dict[str, Any] = {
            "organization_setting": organization_setting,
            "user_setting": user_setting,
            "tenant_column": tenant_column,
            "root_table": root_table,
            "app_role": role,
            "authenticator_role": authenticator_role,
        }
        audited = AuditConfig(
            tenancy=replace(tenancy, **{k: v for k, v in given.items() if v is not None}),
            # The server says whether it is a type: the audit knows more of them than the layer.
            id_type=tenancy.id_type if id_type is None else id_type,
            root_column=root_column,
            root_required=root_table is not None or tenancy.root_table != DEFAULT_CONFIG.root_table,
            token_table=token_table,
            schemas=tuple(schema or ()),
        )
        allowed = Baseline() if baseline is None else read_baseline(baseline)
        report = _audit(url, audited, allowed, tuple(check or ()))
        threshold = None if fail_on is FailOn.NEVER else Severity.named(fail_on)
        text = render_script(report) if fix else render(report, style, threshold)
        if style is Format.TABLE and not fix and output is None:
            typer.echo(f"database {report.database}, seen as {report.role}")
        _write(text, output, report)
    except TenancyError as error:
        _refuse(error)
    if threshold is not None and report.fails(threshold):
        raise typer.Exit(1)


def _audit(
    url: str | None, config: AuditConfig, baseline: Baseline, only: tuple[str, ...]
) -> Report:
    target = named_database(url, named_settings())
    # An address that answers nothing would otherwise be waited for for minutes.
    patience = {} if "connect_timeout" in target.query else {"connect_timeout": _CONNECT_SECONDS}
    with closing(connect(target.update_query_dict(patience), target)) as connection:
        try:
            return run_audit(connection, config, baseline=baseline, only=only)
        except psycopg2.Error as error:
            raise AuditError(
                f"the audit of {target.render_as_string(hide_password=True)} was broken off, so "
                f"that nothing is known: {_first_line(error)}"
            ) from error


def _listed() -> list[str]:
    width = max(len(check.id) for check in checks())
    return [f"{check.severity!s:<8}{check.id:<{width}}  {summary(check.id)}" for check in checks()]


def _write(text: str, output: Path | None, report: Report) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the report cannot be written: {error}") from error
    typer.echo(report.verdict)


def _first_line(error: psycopg2.Error) -> str:
    return str(error).strip().partition("\n")[0]


def _refuse(error: TenancyError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from None
