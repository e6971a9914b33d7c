"""The peers' ratios as an SVG that is read in light and dark, by eyes and by screen readers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from bench.figures import Spread

_ROW: Final = 26
_TOP: Final = 84
_LABELS: Final = 216
_PANEL: Final = 150
_GAP: Final = 18
_FOOT: Final = 46
# The dot's value is written to the right of it.
_VALUE: Final = 38

_STYLE: Final = """
svg { --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --own: #0969da; --other: #8250df; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #f0f6fc; --soft: #9198a1; --line: #3d444d; --own: #4493f8; --other: #ab7df8; }
}
text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.title { font-size: 15px; font-weight: 600; }
.soft { fill: var(--soft); }
.grid { stroke: var(--line); }
.even { stroke: var(--soft); stroke-dasharray: 3 3; }
.own { --color: var(--own); } .other { --color: var(--other); }
.spread { stroke: var(--color); stroke-width: 6; stroke-linecap: round; opacity: 0.35; }
.median { fill: var(--color); }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of the chart: the ratios of one work in one place, by variant."""

    title: str
    ratios: Mapping[str, Spread]
    domain: tuple[float, float]

    @classmethod
    def of(cls, title: str, ratios: Mapping[str, Spread], beside: Sequence[Spread]) -> "Panel":
        """Return a panel on the scale of all that is to be compared with it."""
        low = min(0.7, *(spread.low for spread in beside)) * 0.95
        high = max(1.5, *(spread.high for spread in beside)) * 1.05
        return cls(title, ratios, (low, high))

    def place(self, value: float) -> float:
        """Return how far to the right a value is; each doubling is as far as the next."""
        low, high = map(math.log, self.domain)
        return (math.log(value) - low) / (high - low) * (_PANEL - _VALUE)

    def ticks(self) -> list[float]:
        """Return the powers of two within the domain, of many each second one."""
        low, high = self.domain
        powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        return [2.0**power for power in powers if len(powers) < 6 or power % 2 == 0]


def chart(title: str, panels: Sequence[Panel], own: Sequence[str], note: str) -> str:
    """Return the chart: a row for each variant, a column for each panel, shorter is better.

    Args:
        title: also what a screen reader says first; the ratios follow in words.
        panels: with the same variants in the same order.
        own: the variants that are this project's.
        note: what is written below.
    """
    names = list(panels[0].ratios)
    width = _LABELS + len(panels) * (_PANEL + _GAP)
    height = _TOP + len(names) * _ROW + _FOOT
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "role": "img",
            "aria-labelledby": "title desc",
        },
    )
    SubElement(svg, "title", id="title").text = title
    SubElement(svg, "desc", id="desc").text = _in_words(panels)
    SubElement(svg, "style").text = _STYLE
    _text(svg, 0, 18, title, "title")
    _text(svg, 0, 38, "by explicit filters, median and quartiles; to the left is faster", "soft")
    for number, name in enumerate(names):
        _text(svg, 0, _middle(number) + 4, name)
    for column, panel in enumerate(panels):
        left = _LABELS + column * (_PANEL + _GAP)
        group = SubElement(svg, "g", transform=f"translate({left} 0)")
        _draw(group, panel, own, bottom=_TOP + len(names) * _ROW)
    _text(svg, 0, height - 8, note, "soft")
    indent(svg)
    return tostring(svg, encoding="unicode") + "\n"


def _draw(group: Element, panel: Panel, own: Sequence[str], *, bottom: int) -> None:
    _text(group, 0, _TOP - 20, panel.title)
    for tick in panel.ticks():
        x = panel.place(tick)
        _line(group, x, _TOP - 8, x, bottom, "even" if tick == 1 else "grid")
        _text(group, x, bottom + 14, f"{tick:g}", "soft", anchor="middle")
    for number, (name, spread) in enumerate(panel.ratios.items()):
        row = SubElement(group, "g", {"class": "own" if name in own else "other"})
        y = _middle(number)
        _line(row, panel.place(spread.low), y, panel.place(spread.high), y, "spread")
        at = {"cx": f"{panel.place(spread.median):.1f}", "cy": f"{y:g}", "r": "4"}
        SubElement(row, "circle", {"class": "median", **at})
        _text(row, panel.place(spread.high) + 8, y + 4, f"{spread.median:.2f}")


def _middle(number: int) -> float:
    return _TOP + (number + 0.5) * _ROW


def _text(
    parent: Element, x: float, y: float, text: str, kind: str = "", anchor: str = "start"
) -> None:
    at = {"x": f"{x:.1f}", "y": f"{y:g}", "text-anchor": anchor}
    SubElement(parent, "text", at | ({"class": kind} if kind else {})).text = text


def _line(parent: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:g}", "x2": f"{x2:.1f}", "y2": f"{y2:g}"}
    SubElement(parent, "line", {"class": kind, **ends})


def _in_words(panels: Sequence[Panel]) -> str:
    said = (
        f"{panel.title}: "
        + "; ".join(f"{name} {spread}" for name, spread in panel.ratios.items())
        + "."
        for panel in panels
    )
    return " ".join(said)


def peers_chart(
    figures: Mapping[str, Any], *, works: Mapping[str, str], places: Sequence[str], base: str
) -> str:
    """Return the chart of what bench.peers measured."""
    panels = []
    for work, shown in works.items():
        found = {
            place: {
                name: Spread.of_figures(figure)
                for name, figure in figures[place][work].items()
                if name != base
            }
            for place in places
        }
        beside = [spread for ratios in found.values() for spread in ratios.values()]
        panels += [Panel.of(f"{shown}, {place}", found[place], beside) for place in places]
    own = [name for name in panels[0].ratios if name.startswith("tenantry")]
    size = f"{figures['tenants']:,} tenants with {figures['rows']:,} rows each"
    note = f"PostgreSQL {figures['postgresql']}, {size}, {figures['cores']} cores"
    return chart("What keeping tenants apart costs a unit of work", panels, own, note)
