"""Options that several commands have, and who is giving them."""

import getpass
import os
from typing import Annotated

import typer

from assay.services.organizations import OrganizationSummary, find_organization

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OrganizationOption = Annotated[
    str,
    typer.Option(
        "--organization",
        metavar="NAME|ID",
        help="The organization. Its name is looked up across all of them, which is logged.",
    ),
]


def chosen_organization(reference: str, *, command: str) -> OrganizationSummary:
    """Return the organization that `--organization` names."""
    return find_organization(
        reference, reason=f"assay {command}: find an organization by its name", actor=actor()
    )


def actor() -> str:
    """Return the operating system's name for the user, for the log of work across tenants."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # The user of a container need not have a name.
        return f"user {os.getuid()}"
