"""The site in a real browser: whole, level, readable at each width, and without a network."""

import ast
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.page.conftest import ENGLISH, PAGES, ROOT, SITE, WIDTHS, Watch, address

FILES = {
    name: [f for f in ("torch", "jax", "numpy") if (ROOT / "impls" / f / f"{name}.py").exists()]
    for name in ("dropout", "mlp", "evaluate", "train", "noise", "device", "parallel")
}

# The rules of WCAG 2.2, levels A and AA. Without a preload, axe itself requests nothing.
AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "resultTypes": ["violations"],
    "preload": False,
}


def cells(page: Page, name: str, framework: str) -> str:
    """Return the code in a column, line by line, without blank lines."""
    lines = page.eval_on_selector_all(
        f'.columns[data-file="{name}"] .cell[data-framework="{framework}"] .line',
        "all => all.map(line => line.textContent)",
    )
    return "\n".join(line for line in lines if line.strip())


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_screen(name: str, page: Page):
    page.goto(address(name))
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_contrast_and_names_for_a_screen_reader(name: str, scheme: str, page: Page):
    page.emulate_media(color_scheme=scheme)
    page.goto(address(name))
    results = Axe().run(page, options=AXE)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("folder", ["", "zh-cn/"])
@pytest.mark.parametrize("name", FILES)
def test_columns_are_the_files(name: str, folder: str, page: Page):
    page.goto(address(f"{folder}side-by-side.html"))
    for framework in FILES[name]:
        source = (ROOT / "impls" / framework / f"{name}.py").read_text()
        assert cells(page, name, framework) == re.sub(r"\n\s*\n+", "\n", source.strip())


@pytest.mark.parametrize("name", FILES)
def test_every_function_is_in_its_column(name: str, page: Page):
    page.goto(address("side-by-side.html"))
    for framework in FILES[name]:
        path = ROOT / "impls" / framework / f"{name}.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                word = "class" if isinstance(node, ast.ClassDef) else "def"
                cell = page.locator(
                    f'[data-file="{name}"] .cell[data-framework="{framework}"]',
                    has_text=re.compile(rf"{word} {node.name}[(:]"),
                )
                assert cell.first.is_visible(), f"{path}: {node.name}"


@pytest.mark.parametrize("width", [1000, 1280, 1920])
def test_columns_are_level(width: int, page: Page):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address("side-by-side.html"))
    rows = page.eval_on_selector_all(
        ".columns .row:not(.head)",
        """rows => rows.filter(row => row.checkVisibility()).map(
            row => [...row.children].map(cell => {
                const box = cell.getBoundingClientRect();
                return [box.left, box.top, box.height];
            })
        )""",
    )
    assert len(rows) > 50
    for row in rows:
        assert len({left for left, _, _ in row}) == len(row)
        assert len({(top, height) for _, top, height in row}) == 1


def test_links_lead_to_the_line(page: Page):
    page.goto(address("side-by-side.html"))
    links = page.eval_on_selector_all(
        ".where", "all => all.map(a => [a.getAttribute('href'), a.textContent])"
    )
    assert len(links) > 60
    for href, text in links:
        path, line = text.rsplit(":", 1)
        assert href == f"source/{path}.html#L{line}"
        assert f'id="L{line}"' in (SITE / f"source/{path}.html").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_site_lead_somewhere(name: str, page: Page):
    page.goto(address(name))
    for href in page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)"):
        if href.startswith("file://"):
            path, _, anchor = href.removeprefix("file://").partition("#")
            assert Path(path).exists(), href
            if anchor and path.endswith(".html") and "source" not in path:
                text = Path(path).read_text()
                assert f'id="{anchor}"' in text or f'name="{anchor}"' in text, href


def test_differences_are_marked_with_their_reason(page: Page):
    page.goto(address("side-by-side.html"))
    for name, frameworks in FILES.items():
        for framework in frameworks:
            source = (ROOT / "impls" / framework / f"{name}.py").read_text()
            for reason in re.findall(r"# DIFF ([\w ]+: (?:.*[^.\n]\n *# )*.*)", source):
                reason = re.sub(r"\n *# ", " ", reason)
                marked = page.locator(f'.cell[data-framework="{framework}"] .diff').and_(
                    page.locator(f'[data-reason="{reason}"]')
                )
                assert marked.count() > 0, reason
    mark = page.locator(".diff").first
    reason = mark.get_attribute("data-reason")
    look = "e => getComputedStyle(e, '::after').content"
    assert mark.evaluate(look) == "none"
    mark.hover()
    assert mark.evaluate(look) == f'"{reason}"'
    page.mouse.move(0, 0)
    mark.focus()
    assert mark.evaluate(look) == f'"{reason}"'


def test_docstrings_are_folded_until_asked_for(page: Page):
    page.goto(address("side-by-side.html"))
    folded = page.locator("#dropout-sample_keep details")
    code = folded.locator("pre").first
    assert not code.is_visible()
    folded.locator("summary").focus()
    page.keyboard.press("Enter")
    assert code.is_visible()


@pytest.mark.parametrize("folder", ["", "zh-cn/"])
def test_a_phone_shows_one_framework_and_keeps_the_place(folder: str, page: Page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(address(f"{folder}side-by-side.html"))
    place = page.locator("#mlp-MLP-forward")
    place.evaluate("e => e.scrollIntoView({behavior: 'instant'})")
    for framework, name in (("jax", "JAX"), ("numpy", "NumPy"), ("torch", "PyTorch")):
        before = place.bounding_box()
        page.get_by_role("button", name=name, exact=True).click()
        after = place.bounding_box()
        assert before
        assert after
        assert abs(after["y"] - before["y"]) < 2
        visible = page.eval_on_selector_all(
            ".columns .cell",
            """all => [...new Set(
                all.filter(e => e.checkVisibility()).map(e => e.dataset.framework)
            )]""",
        )
        assert visible == [framework]


@pytest.mark.parametrize("name", ENGLISH)
def test_the_other_language_is_at_the_same_place(name: str, page: Page):
    page.goto(address(name))
    sections = page.eval_on_selector_all("article section[id]", "all => all.map(e => e.id)")
    page.evaluate(
        "id => document.getElementById(id).scrollIntoView({behavior: 'instant'})", sections[-1]
    )
    page.locator("a.language").click()
    page.wait_for_url(f"{address(f'zh-cn/{name}')}*")  # a click does not wait for the other page
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.eval_on_selector_all("article section[id]", "all => all.map(e => e.id)") == sections
    if len(sections) > 1 and "#" in page.url:
        assert page.url.split("#")[1] in sections
    page.locator("a.language").click()
    page.wait_for_url(f"{address(name)}*")


def test_print_keeps_the_columns(page: Page, tmp_path: Path):
    page.goto(address("side-by-side.html"))
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins
    row = page.locator("#dropout-apply_keep .row").last
    boxes = [cell.bounding_box() for cell in row.locator(".cell").all()]
    assert len(boxes) == 3
    assert all(box and box["width"] > 150 for box in boxes)
    assert len({box["y"] for box in boxes if box}) == 1
    assert not page.locator(".switch").is_visible()
    # The reason is the comment itself, which is printed.
    assert "# DIFF division" in row.inner_text()


def test_the_first_page_is_small_and_quick(page: Page, watch: Watch):
    page.goto(address("index.html"))
    files = {url.removeprefix("file://").split("?")[0] for url in watch.requests
             if url.startswith("file://")}  # fmt: skip
    assert sum(Path(file).stat().st_size for file in files) < 500_000
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    page.wait_for_function(f"() => {paint} !== undefined")
    assert page.evaluate(paint) < 1000  # milliseconds


def test_the_site_is_small_and_loads_nothing_from_elsewhere():
    files = [path for path in SITE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    loads = re.compile(
        r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["'](https?:)?//"""
    )
    for path in files:
        if path.suffix == ".html":
            assert not loads.search(path.read_text()), path
        if path.suffix == ".css":
            assert not re.search(r"""(?:@import|url\()\s*["']?https?:""", path.read_text()), path
