"""`assay sets …`."""

import json

import typer

from assay.cli.choices import AsJson, OrganizationOption, chosen_organization
from assay.services.sets import list_sets

app = typer.Typer(help="Sets of tests.", no_args_is_help=True)


@app.callback()
def _sets() -> None:
    # Without a callback typer makes the only command the group itself.
    pass


@app.command("list")
def list_all(organization: OrganizationOption, as_json: AsJson = False) -> None:
    """List an organization's sets of tests: id, number of tests, name."""
    found = list_sets(chosen_organization(organization, command="sets list").id)
    if as_json:
        typer.echo(
            json.dumps(
                [{"id": str(each.id), "name": each.name, "tests": each.tests} for each in found]
            )
        )
        return
    for each in found:
        typer.echo(f"{each.id}  {each.tests:>7}  {each.name}")
