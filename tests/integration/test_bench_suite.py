"""The benchmark suite measures, tells and draws what it says; nothing depends on how long."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from bench import footprint, peers, throughput
from bench.__main__ import PARTS, main, part
from bench.chart import Panel, chart
from bench.contenders.work import Row
from bench.figures import DOCUMENTS, RESULTS, ROOT, Spread, rewrite
from bench.pooler import find_pooler
from bench.stage import BASE
from bench.throughput import script
from tests.conftest import RequireService

OWN = ("tenantry", "tenantry, transaction, begin")
SVG = "{http://www.w3.org/2000/svg}"


def measured(name: str, folder: Path, *options: str) -> Any:
    """Run a part's own command, and return the figures that it wrote."""
    file = folder / f"{name}.json"
    command = (sys.executable, "-m", f"bench.{name}", "--json", str(file), *options)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_contenders_are_compared_and_questioned(tmp_path: Path) -> None:
    """The layer shows no other tenant's row to anybody; the same questions find what filters miss.

    The peers' packages come from PyPI and are left to `make bench`.
    """
    options = ("--only", *OWN, "--tenants", "2", "--rounds", "1", "--units", "1")
    figures = measured("peers", tmp_path, *options)
    for name in OWN:
        assert figures["answers"][name] == {
            "pooled": "none",
            "inherited": "own",
            "again": "own",
            "forgotten": "own",
            "foreign": "refused",
        }
    assert figures["answers"][BASE] == {
        "pooled": "everybody's",
        "inherited": "everybody's",
        "again": "own",
        "forgotten": "everybody's",
        "foreign": "accepted",
    }
    assert [figures["round_trips"][name] for name in (BASE, *OWN)] == [3, 4, 2]
    tables = peers.tables(figures)
    assert all(name in tables["peers"] for name in (BASE, *OWN))


def test_throughput_is_of_programs_and_of_the_server(
    tmp_path: Path, require_service: RequireService
) -> None:
    """Eight goals: two senders, with and without PgBouncer, the default and the option."""
    require_service(find_pooler(), "pgbouncer is not installed (apt install pgbouncer)")
    figures = measured(
        "throughput",
        tmp_path,
        *("--goals-only", "--tenants", "2", "--rounds", "1", "--seconds", "0.1", "--clients", "1"),
    )
    rates = [
        figures[place][sender][name]["per_second"]
        for place in throughput.PLACES
        for sender in throughput.SENDERS
        for name in (BASE, *throughput.AIMED)
    ]
    assert len(rates) == 12
    assert min(rates) > 0
    assert len(throughput.goals(figures)) == 8


def test_whole_suite_is_one_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It runs the parts that are asked for, in its order, and ends with their goals."""
    assert main(["--quick", "--only", "footprint", "--json", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "footprint.json").read_text())
    assert set(figures["imports"]) == set(footprint.IMPORTS)
    assert not {"celery", "fastapi", "typer"} & set(figures["loaded_besides"])
    if Path("/proc/self/status").exists():
        assert set(figures["memory"]) == set(footprint.WEIGHED)
    told = capfd.readouterr().out
    assert told.index("footprint: import time") < told.index("goals")


def test_failure_of_a_part_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that cannot be measured makes the status 1; its older figures are not shown again."""
    (tmp_path / "search.json").write_text("{}")
    monkeypatch.setenv("TENANTRY_POSTGRES_BIN", str(tmp_path))
    assert main(["--quick", "--only", "search", "--json", str(tmp_path)]) == 1


def test_documents_are_not_made_of_quick_figures() -> None:
    """What takes two minutes is not written into the documents."""
    with pytest.raises(SystemExit):
        main(["--quick", "--docs"])


@pytest.mark.parametrize("name", list(PARTS))
def test_documents_show_the_committed_figures(name: str, tmp_path: Path) -> None:
    """A table in the documents is what its figures say, and writing it again changes nothing."""
    figures = json.loads((RESULTS / f"{name}.json").read_text())
    copies = []
    for document_ in DOCUMENTS:
        copies.append(tmp_path / document_.name)
        copies[-1].write_text(document_.read_text())
    rewrite(part(name).tables(figures), copies)
    assert [copy.read_text() for copy in copies] == [path.read_text() for path in DOCUMENTS]


def test_chart_shows_the_committed_figures() -> None:
    """What is drawn is what was measured."""
    figures = json.loads((RESULTS / "peers.json").read_text())
    assert peers.CHART.read_text() == peers.drawn(figures)


def test_chart_is_drawn_and_told_in_words() -> None:
    """The SVG is well formed, has a title, and says every ratio as text, whatever the names are."""
    ratios = {"ours": Spread(0.98, 1.0, 1.04), "<b> & others": Spread(20.0, 33.3, 40.0)}
    panel = Panel.of("look up, local", ratios, list(ratios.values()))
    drawn = chart("Costs", [panel, panel], ["ours"], "note")
    svg = fromstring(drawn)  # noqa: S314 - our own
    assert svg.findtext(f"{SVG}title") == "Costs"
    told = svg.findtext(f"{SVG}desc") or ""
    assert "look up, local: ours 1.00 (0.98 to 1.04); <b> & others 33.30" in told
    written = [element.text for element in svg.iter(f"{SVG}text")]
    assert written.count("1.00") == written.count("33.30") == 2
    xs = [float(element.attrib["x2"]) for element in svg.iter(f"{SVG}line")]
    assert 0 <= min(xs) <= max(xs) <= 150


def test_pgbench_sends_each_message_as_it_was() -> None:
    """A message of several statements stays one, for any tenant and row instead of those seen."""
    row = Row(3, 4)
    lines = script(
        ["BEGIN", f"select set_config('a', '{row.owner}', true);\nselect '{row.id}'::UUID"], row
    ).splitlines()
    assert lines[-3:] == [
        "BEGIN;",
        r"select set_config('a', '00000000-0000-4000-8000-:tenant', true)\;",
        "select '00000000-0000-4000-9000-:item'::UUID;",
    ]
