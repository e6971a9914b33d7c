"""`tenantry tasks …`: what became of background tasks, and what shall become of them."""

import getpass
import json
import uuid
from datetime import timedelta
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from tenantry.exceptions import ConfigurationError, InvalidTenantError

app = typer.Typer(
    help="Background tasks by their records: of one organization, or of all with a reason.",
    no_args_is_help=True,
)

_Organization = Annotated[
    str | None, typer.Option("--organization", metavar="ID", help="Whose tasks.")
]
_All = Annotated[
    bool, typer.Option("--all", help="Every organization's, as maintenance; needs --reason.")
]
_Reason = Annotated[
    str, typer.Option(metavar="TEXT", help="Why all; kept in the log of work across tenants.")
]
_App = Annotated[
    str | None,
    typer.Option(
        "--app", envvar="CELERY_APP", metavar="MODULE:ATTRIBUTE", help="The Celery application."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_State = Annotated[list[str] | None, typer.Option("--state", help="Only these; repeatable.")]
_Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Task ids.")]

_SHORT: Final = (
    "id",
    "organization_id",
    "name",
    "state",
    "queued_at",
    "runtime",
    "retries",
    "error",
)
_FIELDS: Final = (
    *("id", "organization_id", "user_id", "name", "state", "retries", "error", "runtime"),
    *("worker", "queued_at", "dispatched_at", "started_at", "finished_at", "eta", "due_at"),
    *("updated_at", "args_digest"),
)


@app.command("list")
def list_(
    organization: _Organization = None,
    everyone: _All = False,
    reason: _Reason = "",
    celery_app: _App = None,
    state: _State = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: _Json = False,
) -> None:
    """List the latest tasks, the newest first."""
    control = _control()
    reach = _reach(control, organization, everyone, reason, celery_app)
    records = control.list_tasks(reach, states=_states(control, state), limit=limit)
    if as_json:
        typer.echo(json.dumps([_as_dict(record) for record in records]))
        return
    shown = [name for name in _SHORT if everyone or name != "organization_id"]
    rows = [tuple(shown)]
    rows += [tuple(_text(_as_dict(record)[name]) for name in shown) for record in records]
    # Ids are there to be copied: nothing is cut to the width of a terminal.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(metavar="ID")],
    organization: _Organization = None,
    everyone: _All = False,
    reason: _Reason = "",
    celery_app: _App = None,
    as_json: _Json = False,
) -> None:
    """Show all that is recorded of a task, with its arguments. Exits with 1 if there is none.

    With --app and Redis or RabbitMQ, workers are asked whether they have it.
    """
    control = _control()
    reach = _reach(control, organization, everyone, reason, celery_app)
    record = control.find_task(reach, _id(task_id))
    if record is None:
        raise ConfigurationError(f"there is no task {task_id}")
    values = _as_dict(record) | {key: record.payload[key] for key in ("args", "kwargs")}
    if found := control.locate(reach, record):
        values["found"] = ", ".join(f"{state} on {worker}" for worker, state in found.items())
    if as_json:
        typer.echo(json.dumps(values, default=str))
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name.ljust(width)}  {_text(value)}".rstrip())


@app.command()
def revoke(
    task_ids: _Ids,
    organization: _Organization = None,
    everyone: _All = False,
    reason: _Reason = "",
    celery_app: _App = None,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="End it if it runs; by Redis or RabbitMQ alone.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Keep tasks from being executed, on every broker. Exits with 1 if none was left to revoke."""
    control = _control()
    reach = _reach(control, organization, everyone, reason, celery_app)
    revoked = control.revoke(reach, [_id(text) for text in task_ids], terminate=terminate)
    _report(control, reach, "revoked", task_ids, revoked, as_json)


@app.command()
def requeue(
    task_ids: _Ids,
    organization: _Organization = None,
    everyone: _All = False,
    reason: _Reason = "",
    celery_app: _App = None,
    as_json: _Json = False,
) -> None:
    """Run tasks again that failed, were revoked or lost, or are stuck. Exits with 1 if none was.

    With --app they are published at once, otherwise by the next sweep.
    """
    control = _control()
    reach = _reach(control, organization, everyone, reason, celery_app)
    queued = control.requeue(reach, [_id(text) for text in task_ids])
    _report(control, reach, "queued", task_ids, queued, as_json)


@app.command()
def purge(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Since they ended.")
    ],
    organization: _Organization = None,
    everyone: _All = False,
    reason: _Reason = "",
    celery_app: _App = None,
    state: _State = None,
    as_json: _Json = False,
) -> None:
    """Delete the records of tasks that have ended; a revoked one's when its message is not due."""
    control = _control()
    reach = _reach(control, organization, everyone, reason, celery_app)
    count = control.purge(
        reach, older_than=timedelta(days=older_than), states=_states(control, state)
    )
    typer.echo(json.dumps({"purged": count}) if as_json else f"purged {count} task records")


def _control() -> Any:
    # Celery is an optional dependency, and takes longer to import than all other commands.
    return import_module("tenantry.celery.control")


def _reach(
    control: Any, organization: str | None, everyone: bool, reason: str, celery_app: str | None
) -> Any:
    if (organization is None) is not everyone:
        raise ConfigurationError("say whose tasks: --organization ID, or --all --reason TEXT")
    if everyone and not reason.strip():
        raise ConfigurationError("--all is work across tenants and is logged: say --reason TEXT")
    app = None if celery_app is None else control.load_app(celery_app)
    try:
        tenant = None if organization is None else control.parse_organization(app, organization)
    except InvalidTenantError as error:
        advice = "" if app else ". --app names the application whose tenants have other ids"
        raise ConfigurationError(f"--organization: {error}{advice}") from error
    return control.Reach(
        organization_id=tenant,
        reason=reason,
        actor=f"tenantry tasks, {getpass.getuser()}",
        app=app,
    )


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no UUID") from None


def _states(control: Any, names: list[str] | None) -> list[Any]:
    known = control.TaskState
    try:
        return [known(name.lower()) for name in names or ()]
    except ValueError as error:
        raise ConfigurationError(f"{error}: use {', '.join(known)}") from None


def _report(
    control: Any, reach: Any, what: str, wanted: list[str], done: list[uuid.UUID], as_json: bool
) -> None:
    others = sorted({str(_id(text)) for text in wanted} - {str(task_id) for task_id in done})
    if as_json:
        typer.echo(json.dumps({what: [str(task_id) for task_id in done], "unchanged": others}))
    else:
        for task_id in done:
            typer.echo(f"{what} {task_id}")
        for text in others:
            record = control.find_task(reach, uuid.UUID(text))
            why = "there is no such task" if record is None else f"it is {record.state}"
            typer.echo(f"unchanged {text}: {why}")
    if not done:
        raise typer.Exit(1)


def _as_dict(record: Any) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _FIELDS}
    return {
        name: value if value is None or isinstance(value, int | float) else str(value)
        for name, value in values.items()
    }


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
