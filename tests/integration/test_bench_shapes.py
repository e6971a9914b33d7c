"""The bench of the queries' shapes measures all that its document shows."""

import shutil
from pathlib import Path

from bench.figures import DOCUMENTS, Spread, about, rewrite
from bench.grounds import Ground, choose_grounds, lay
from bench.shapes import Bench, goals, measure, tables
from bench.statements import backend
from rich.progress import Progress

from tenantry.testing import Database, Server


def test_bench_of_shapes_fills_every_table_of_its_document(
    tenantry_server: Server, empty_database: Database, tmp_path: Path
) -> None:
    """One round of every part gives goals with a spread, and a table between each of the marks."""
    grounds = choose_grounds(3, 4, 4) | {
        "few": [Ground("few", 8_000, skewed=True)],
        "partitions": [Ground("partitions_4", 4_000, partitions=4)],
    }
    lay(empty_database, *(each for some in grounds.values() for each in some))
    with backend(empty_database.app_url) as connection:
        bench = Bench(empty_database, connection, Progress(disable=True), 1, few=True)
        figures = about(tenantry_server.version) | measure(bench, grounds)
    reached = goals(figures)
    assert {"point, simple", "delete by key, prepared"} <= {goal.title for goal in reached}
    assert all(isinstance(goal.measured, Spread) for goal in reached)
    document = Path(shutil.copy(DOCUMENTS[0], tmp_path))
    written = tables(figures)
    rewrite(written, [document])
    assert all(text.strip() in document.read_text() for text in written.values())
    lines = [line for text in written.values() for line in text.splitlines()[2:]]
    assert all("|  |" not in line for line in lines)
