"""What the benches share reads as it should: ratios, goals, turns, and the documents' tables."""

from collections import Counter
from pathlib import Path

import pytest
from bench.figures import DOCUMENTS, Goal, Spread, markdown, rewrite, turns

MARKED = """before
<!-- bench: one -->
old
<!-- end -->
between
<!-- bench: two -->
<!-- end -->
"""


def test_spread_is_of_the_ratios_of_each_round() -> None:
    """What made one round slow for both does not count."""
    spread = Spread.of_ratios([1.1, 2.2, 110.0], [1.0, 2.0, 100.0])
    assert str(spread) == "1.10 (1.10 to 1.10)"
    assert Spread.of_figures(spread.figures()) == spread
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("ratio", 1.05, Spread(1.0, 1.054, 1.1)), True),
        (Goal("ratio", 1.05, Spread(1.0, 1.056, 1.1)), False),
        (Goal("throughput", 0.97, Spread(0.9, 0.966, 1.0), at_least=True), True),
        (Goal("throughput", 0.97, Spread(0.9, 0.96, 1.0), at_least=True), False),
        (Goal("round trips", -1, -1), True),
        (Goal("round trips", -1, 0), False),
    ],
)
def test_goal_is_compared_as_it_is_shown(goal: Goal, reached: bool) -> None:
    """A goal is reached exactly where the figures of its row say so."""
    assert goal.reached is reached
    assert goal.cells()[3] == ("yes" if reached else "no")


@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_everyone_takes_every_place(count: int) -> None:
    """Over a cycle each variant comes equally often at each place, and nobody twice a round."""
    names = list(range(count))
    rounds = [turns(names, number) for number in range(2 * count)]
    assert all(sorted(order) == names for order in rounds)
    for place in range(count):
        assert set(Counter(order[place] for order in rounds).values()) == {2}


def test_tables_are_rewritten_between_their_marks(tmp_path: Path) -> None:
    """Nothing but what is between the marks of a name changes, and twice is as good as once."""
    document = tmp_path / "document.md"
    document.write_text(MARKED)
    table = markdown(("what", "ratio"), [("point", "1.00")])
    for _ in range(2):
        rewrite({"one": table}, [document])
        assert document.read_text() == MARKED.replace("old", table)


def test_table_without_marks_is_an_error(tmp_path: Path) -> None:
    """A table that no document has a place for is not lost in silence."""
    document = tmp_path / "document.md"
    document.write_text(MARKED.replace("<!-- end -->", "", 1))
    for name in ("one", "three"):
        with pytest.raises(ValueError, match=f"bench: {name}"):
            rewrite({name: "table"}, [document])
    assert "old" in document.read_text()


def test_documents_have_each_mark_once() -> None:
    """A mark in two places would be a table in two places."""
    marks = [
        line
        for document in DOCUMENTS
        for line in document.read_text().splitlines()
        if line.startswith("<!-- bench: ")
    ]
    assert len(marks) == len(set(marks)) > 0
