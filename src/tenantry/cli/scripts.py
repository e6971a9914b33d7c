"""`tenantry sql`: where the scripts for psql are."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from tenantry.exceptions import ConfigurationError

_PACKAGE: Final = Path(__file__).parents[1]
# In the wheel; beside the sources otherwise.
_FOLDERS: Final = (_PACKAGE / "scripts" / "sql", _PACKAGE.parents[1] / "sql")


class Script(StrEnum):
    """A script for psql."""

    ROLES = "roles"
    AUDIT = "audit"
    LEAKPROOF = "leakproof"


def sql(
    script: Annotated[Script, typer.Argument(help="Which script.", show_default=False)],
) -> None:
    """Print where a script for psql is.

    For example: psql -d DATABASE -f "$(tenantry sql roles)"
    """
    for folder in _FOLDERS:
        file = folder / f"{script}.sql"
        if file.is_file():
            typer.echo(file)
            return
    raise ConfigurationError(f"this installation of tenantry lacks the script {script}.sql")
