"""The documentation at `/docs` in a real browser: it works, and asks nobody but the API."""

import json
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tests.conftest import RequireService
from tests.fixtures.api_site import Site, new_site

from tenantry.testing import Database


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running API."""
    with new_site(tenantry_database, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def page(require_service: RequireService) -> Iterator[Page]:
    """Return a page of headless Chromium, in a profile of its own."""
    program = shutil.which("chromium")
    require_service(program, "chromium is not installed (apt install chromium)")
    with sync_playwright() as playwright:
        # Its sandbox does not run as root.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def test_request_is_authorized_and_executed_in_the_browser(site: Site, page: Page) -> None:
    """Somebody puts a token into the page and reads their sets there; nobody else is asked.

    Without the token the same button brings the 401, so that it is the token that counts.
    """
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{site.http.base_url}/docs")

    operation = page.locator(".opblock", has=page.locator('[data-path="/test_sets"]')).filter(
        has=page.locator(".opblock-summary-method", has_text="GET")
    )
    operation.locator(".opblock-summary-control").click()
    execute = operation.get_by_role("button", name="Execute")
    answer = operation.locator(".live-responses-table tbody tr").first
    execute.click()
    expect(answer.locator(".response-col_status")).to_contain_text("401")

    page.locator(".auth-wrapper").first.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(site.first.token)
    page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-container").get_by_role("button", name="Close").click()
    execute.click()
    expect(answer.locator(".response-col_status")).to_contain_text("200")

    shown = json.loads(answer.locator(".highlight-code code").inner_text())
    own = {str(site.first.ids["set_id"]), str(site.first.ids["used_set_id"])}
    assert {each["id"] for each in shown["items"]} == own
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {
        f"{site.http.base_url.host}:{site.http.base_url.port}"
    }
    assert errors == []
