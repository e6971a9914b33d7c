"""`assay organizations …`."""

import json
from typing import Annotated

import typer

from assay.cli.choices import AsJson, actor
from assay.services.organizations import create_organization, list_organizations

app = typer.Typer(help="Organizations: the tenants.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Need not be unique.", show_default=False)],
    user: Annotated[
        list[str] | None,
        typer.Option(metavar="EMAIL", help="A user to create with it; can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an organization and print its id."""
    created = create_organization(name, users=user or [])
    if as_json:
        typer.echo(json.dumps({"id": str(created.id), "name": created.name}))
    else:
        typer.echo(str(created.id))


@app.command("list")
def list_all(
    reason: Annotated[str, typer.Option(help="Why you look at all of them; it is logged.")],
    as_json: AsJson = False,
) -> None:
    """List all organizations, as the maintenance role."""
    found = list_organizations(reason=reason, actor=actor())
    if as_json:
        typer.echo(json.dumps([{"id": str(each.id), "name": each.name} for each in found]))
        return
    for each in found:
        typer.echo(f"{each.id}  {each.name}")
