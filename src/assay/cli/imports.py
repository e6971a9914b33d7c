"""`assay import`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from assay.cli.choices import OrganizationOption, chosen_organization
from assay.models import Metric
from assay.services import imports


def import_file(
    file: Annotated[Path, typer.Argument(help="In UTF-8.", show_default=False)],
    organization: OrganizationOption,
    set_name: Annotated[
        str, typer.Option("--set", metavar="NAME", help="The new set's name.", show_default=False)
    ],
    file_format: Annotated[
        imports.Format | None,
        typer.Option("--format", help="By default what the file's name ends with."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What is asked; by default 'prompt'.")
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What counts as right; by default 'expected'."),
    ] = None,
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="How every answer is compared; by default what the column 'metric' says, or exact."
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="By default 'category', if there is one.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="A full answer; by default 'reference', if there is one."
        ),
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Between the answers in a field, with metric any_of.")
    ] = ";",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Import so many tests and no more.")
    ] = None,
) -> None:
    """Import a CSV or JSONL file as a new set of tests: all of it, or nothing.

    The published files of TruthfulQA (CSV) and GSM8K (JSONL) need no options for columns.
    """
    columns = imports.Columns(
        prompt=prompt,
        expected=expected,
        metric=metric,
        category=category,
        reference=reference,
        separator=separator,
    )
    owner = chosen_organization(organization, command="import")
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[tests]:,} tests"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(file.name, total=None, tests=0)

        def show(done: imports.Progress) -> None:
            bar.update(
                task,
                total=done.bytes_total or None,
                completed=done.bytes_read,
                tests=done.tests,
            )

        imported = imports.import_tests(
            file,
            owner.id,
            set_name,
            file_format=file_format,
            columns=columns,
            limit=limit,
            progress=show,
        )
    typer.echo(
        f"imported {imported.tests:,} tests into {imported.name!r} of {owner.name!r} ({owner.id})"
    )
