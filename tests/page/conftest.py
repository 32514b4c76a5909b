"""A browser for the tests of the page. It is Debian's Chromium, and it has no network."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
ENGLISH = sorted(
    str(path.relative_to(SITE))
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] not in ("zh-cn", "source") and path.name != "search.html"
)
PAGES = [*ENGLISH, *(f"zh-cn/{name}" for name in ENGLISH)]
WIDTHS = (360, 768, 1280, 1920)


@dataclass
class Watch:
    """What a page did that a reader would not see."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser. A machine without one has to install it: these tests are not skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no Chromium: apt-get install chromium fonts-noto-cjk"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def watch() -> Watch:
    """The errors and requests of `page`."""
    return Watch()


@pytest.fixture
def page(browser: Browser, watch: Watch) -> Iterator[Page]:
    """A new page of 1,280 pixels. The test fails if the page leaves the disk or has an error."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: watch.errors.append(message.text))
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("request", lambda request: watch.requests.append(request.url))
    yield page
    page.close()
    assert not watch.errors
    assert all(url.startswith(("file://", "data:")) for url in watch.requests)


def address(name: str) -> str:
    """Return the address of a page by its file name within the site."""
    return (SITE / name).as_uri()
