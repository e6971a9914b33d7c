from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from playwright.sync_api import Browser, Page, sync_playwright
from tests.audit.conftest import Audited
from tests.conftest import RequireService

from tenantry.audit import Allowance, Baseline, Report
from tenantry.audit.formats import Format, pages, render

CHROMIUM = Path("/usr/bin/chromium")
TABLE = 'public."<script>alert(1)</script>""\'&\n<img src=//x onerror=alert()>"'

Show = Callable[..., Page]

# Contrast after WCAG 2: of each text against the nearest background that is not transparent.
CONTRASTS = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.matches('.skip')) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${text.data.trim().slice(0, 40)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser(require_service: RequireService) -> Iterator[Browser]:
    """Yield a headless Chromium."""
    require_service(CHROMIUM.exists(), "chromium is not installed (apt install chromium)")
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox; it opens this test's own file alone.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Return what opens a report's page in Chromium, which fails on any request but the page's."""
    file = tmp_path / "report.html"
    requests: list[str] = []
    troubles: list[str] = []
    with ExitStack() as stack:

        def open_page(report: Report, scheme: str = "light", width: int = 1280) -> Page:
            file.write_text(render(report, Format.HTML), encoding="utf-8")
            page = browser.new_page(
                color_scheme="dark" if scheme == "dark" else "light",
                viewport={"width": width, "height": 900},
            )
            stack.callback(page.close)
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: troubles.append(message.text))
            page.on("dialog", lambda dialog: troubles.append(dialog.message))
            page.goto(file.as_uri())
            return page

        yield open_page
    assert requests == [file.as_uri()]
    assert troubles == []


@pytest.fixture
def report(audited: Audited) -> Report:
    """Return a report of everything there is: each severity, allowed, stale, not seen, hostile."""
    audited.broken_by(
        f"create table {TABLE} (organization_id uuid not null, id uuid primary key)",
        f"grant select on {TABLE} to tenantry_app",
        "create policy shared on test_sets for select using (true)",
        "drop policy tests_tenant_wall on tests",
        "alter table test_runs no force row level security",
        "revoke select on pg_catalog.pg_db_role_setting from public",
    )
    [found] = [
        each.fingerprint
        for each in audited.audit().findings
        if (each.check, each.object) == ("row_security_off", "public.test_runs")
    ]
    entries = [
        Allowance(
            check="row_security_off", object="public.test_runs", reason="<b>Monday</b>", found=found
        ),
        Allowance(check="row_security_off", object="public.gone", reason="was there"),
    ]
    report = audited.audit(baseline=Baseline(tuple(entries)))
    assert all((report.allowed, report.stale, report.unseen, report.matrix))
    return report


def test_page_tells_all_of_the_report(report: Report, show: Show) -> None:
    """Verdict, findings with remedy and statement, matrix, roles, allowed and unseen are there."""
    page = show(report)
    assert page.title() == f"NOT ISOLATED: {report.database}"
    assert report.verdict in page.locator(".verdict").inner_text()
    cards = page.locator("article.finding")
    assert cards.count() == len(report.findings)
    statements = [each.statement for each in report.findings if each.statement is not None]
    assert page.locator("article pre").all_text_contents() == statements
    for position, finding in enumerate(report.findings):
        told = cards.nth(position).text_content() or ""
        assert finding.check in told
        assert finding.remedy in told
    rows = page.locator("table.matrix tbody tr")
    assert rows.count() == len(report.matrix) == report.tables
    words = [cell.partition(" ")[2] for cell in rows.nth(1).locator("td strong").all_inner_texts()]
    assert words == [str(cell.protection) for cell in report.matrix[1].cells]
    text = page.locator("main").inner_text()
    for said in ("<b>Monday</b>", "it has no such finding", "tenantry_login", "could not look"):
        assert said in text


def test_names_are_text(report: Report, show: Show) -> None:
    """A table called like a script is shown by its name: no element comes of it, nothing runs."""
    page = show(report)
    assert page.locator("script, img, iframe, b b").count() == 0
    shown = page.locator("table.matrix tbody th .name").all_text_contents()
    assert TABLE.replace("\n", r"\n") in shown


def test_unescaped_names_would_be_markup(
    report: Report, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation: elements come of the name; and even then the page's own rule stops them."""

    def careless(**options: Any) -> Environment:
        return Environment(**{**options, "autoescape": False})  # noqa: S701, it is the mutation

    monkeypatch.setattr(pages, "Environment", careless)
    file = tmp_path / "careless.html"
    file.write_text(render(report, Format.HTML), encoding="utf-8")
    stopped: list[str | None] = []
    refused: list[str] = []
    page = browser.new_page()
    page.on("requestfailed", lambda request: stopped.append(request.failure))
    page.on("console", lambda message: refused.append(message.text))
    page.goto(file.as_uri())
    assert page.locator("main img").count() > 0
    assert page.locator("main script").count() > 0
    page.close()
    assert set(stopped) == {"csp"}
    assert any("Content Security Policy" in said for said in refused)


def test_page_is_self_contained_by_its_own_rule(report: Report, show: Show) -> None:
    """The browser is told to load and run nothing, so that what slipped through would not run."""
    page = show(report)
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert (policy or "").startswith("default-src 'none'; ")
    assert page.evaluate("document.querySelectorAll('[src], link[href^=http]').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(report: Report, show: Show, scheme: str) -> None:
    """Every text has the contrast of 4.5 that WCAG 2 asks for (AA); the two differ."""
    page = show(report, scheme)
    assert page.evaluate(CONTRASTS) == []
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert (red + green + blue > 600) is (scheme == "light")


def test_print_is_black_on_white_and_whole(report: Report, show: Show) -> None:
    """Printed from a dark screen it is light, no column is cut off, headings repeat."""
    page = show(report, "dark")
    page.emulate_media(media="print")
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == (
        "table-header-group"
    )
    # A4 across, less its margins, at 96 dots an inch.
    page.set_viewport_size({"width": 1016, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1016
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF-")


@pytest.mark.parametrize("width", [360, 1280])
def test_page_never_scrolls_sideways(report: Report, show: Show, width: int) -> None:
    """On a phone the tables scroll in their own frames."""
    page = show(report, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_page_is_for_keyboards_and_screen_readers(report: Report, show: Show) -> None:
    """Headings in order, each cell under a heading, a way to skip, frames that take the focus."""
    page = show(report)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("html[lang=en] main").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator(".scroll:not([tabindex='0'][role=region][aria-labelledby])").count() == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the findings"
    page.keyboard.press("Enter")
    assert page.url.endswith("#findings")


def test_page_of_an_isolated_database(audited: Audited, show: Show) -> None:
    """It says so first, and shows that nothing is open."""
    report = audited.audit()
    page = show(report)
    assert page.title() == f"Isolated: {report.database}"
    assert page.locator(".verdict.good").count() == 1
    assert page.locator(".cell.open, .cell.thin, article").count() == 0
