"""The live piece: the masks of the reader's browser are those of impls/numpy, bit for bit."""

import json

import numpy as np
import pytest
from playwright.sync_api import Page

from impls.numpy import prng
from impls.numpy.dropout import apply_keep, dropout, sample_keep
from shared.data import load
from tests.page.conftest import address

RNG = np.random.default_rng(0)
SEEDS = [0, 1, 42, 2**31, 2**32 - 1, *map(int, RNG.integers(0, 2**32, 20))]
RATES = [0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1]


@pytest.fixture
def lesson(page: Page) -> Page:
    """The first page."""
    page.goto(address("index.html"))
    return page


def test_keys_are_those_of_numpy(lesson: Page):
    ours = lesson.evaluate(
        """seeds => seeds.map(seed => {
            const key = Threefry.key(seed);
            return [key, Threefry.split(key), Threefry.split(key, 5), Threefry.foldIn(key, 7),
                    Threefry.foldIn(Threefry.foldIn(key, 2 ** 32 - 1), seed)];
        })""",
        SEEDS,
    )
    for seed, (key, two, five, folded, twice) in zip(SEEDS, ours, strict=True):
        expected = prng.key(seed)
        np.testing.assert_array_equal(key, expected)
        np.testing.assert_array_equal(two, prng.split(expected))
        np.testing.assert_array_equal(five, prng.split(expected, 5))
        np.testing.assert_array_equal(folded, prng.fold_in(expected, 7))
        np.testing.assert_array_equal(twice, prng.fold_in(prng.fold_in(expected, 2**32 - 1), seed))


@pytest.mark.parametrize("n", [1, 2, 16, 17, 784, 5000])
def test_masks_and_units_are_those_of_numpy(n: int, lesson: Page):
    x = RNG.normal(size=n).astype(np.float32)
    ours = lesson.evaluate(
        """([seeds, rates, x]) => seeds.map(seed => rates.map(p => {
            const keep = Threefry.sampleKeep(Threefry.foldIn(Threefry.key(seed), 3), x.length, p);
            return [keep.map(Number).join(""), Threefry.applyKeep(x, keep, p)];
        }))""",
        [SEEDS[:8], RATES, x.tolist()],
    )
    for seed, of_seed in zip(SEEDS[:8], ours, strict=True):
        key = prng.fold_in(prng.key(seed), 3)
        for p, (mask, units) in zip(RATES, of_seed, strict=True):
            keep = sample_keep((n,), p, rng=key)
            np.testing.assert_array_equal([bit == "1" for bit in mask], keep)
            np.testing.assert_array_equal(np.float32(units), apply_keep(x, keep, p))


def shown(page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the key, the 16 numbers, and the mask of the image that the page shows."""
    values = page.eval_on_selector_all(".numbers span", "all => all.map(e => +e.dataset.value)")
    live = page.locator("#live")
    mask = live.get_attribute("data-mask") or ""
    key = json.loads(live.get_attribute("data-key") or "")
    return np.array(key, np.uint32), np.array(values), np.array([bit == "1" for bit in mask])


def check(page: Page, key: np.ndarray, p: float) -> None:
    """Compare what the page shows with what NumPy computes."""
    numbers = np.arange(16, dtype=np.float32)
    found, values, mask = shown(page)
    np.testing.assert_array_equal(found, key)
    np.testing.assert_array_equal(values, dropout(numbers, p, training=True, rng=key))
    np.testing.assert_array_equal(mask, sample_keep((784,), p, rng=key))


def test_slider_and_seed_by_keyboard(lesson: Page):
    check(lesson, prng.key(0), 0.5)
    slider = lesson.get_by_role("slider")
    slider.focus()
    lesson.keyboard.press("ArrowRight")
    check(lesson, prng.key(0), 0.55)
    lesson.keyboard.press("Home")
    check(lesson, prng.key(0), 0)
    lesson.keyboard.press("End")
    check(lesson, prng.key(0), 1)
    lesson.keyboard.press("Tab")  # to the seed
    lesson.keyboard.press("Control+a")
    lesson.keyboard.type("4294967295")
    check(lesson, prng.key(2**32 - 1), 1)
    for name, next_key in (("again", 0), ("split", 1)):
        lesson.keyboard.press("Tab")
        assert lesson.evaluate("document.activeElement.name") == name
        lesson.keyboard.press("Enter")
        assert shown(lesson)[0].tolist() != prng.key(2**32 - 1).tolist(), next_key


def test_slider_by_mouse(lesson: Page):
    slider = lesson.get_by_role("slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box
    lesson.mouse.click(box["x"] + box["width"] - 9, box["y"] + box["height"] / 2)
    check(lesson, prng.key(0), 1)
    lesson.mouse.click(box["x"] + 9, box["y"] + box["height"] / 2)
    check(lesson, prng.key(0), 0)


def test_what_becomes_of_a_key(lesson: Page):
    key = prng.key(0)
    lesson.get_by_role("button", name="split").click()
    first, second = prng.split(key)
    check(lesson, first, 0.5)
    assert f"[{second[0]}, {second[1]}]" in lesson.locator(".live .key").inner_text()
    lesson.get_by_role("button", name="fold_in").click()
    check(lesson, prng.fold_in(first, 1), 0.5)
    lesson.get_by_role("button", name="start over").click()
    check(lesson, key, 0.5)
    lesson.get_by_role("button", name="again").click()
    check(lesson, prng.fold_in(key, 1), 0.5)


def test_the_mean_of_many_masks_approaches_the_image(lesson: Page):
    image = load("sample").test_images[0].ravel() / 255
    again = lesson.get_by_role("button", name="again")
    for _ in range(99):
        again.evaluate("button => button.click()")
    points = lesson.locator("polyline.measured").get_attribute("points") or ""
    assert len(points.split()) == 100
    brightness = lesson.locator("canvas").last.evaluate(
        """canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, 28, 28).data)
            .filter((_, i) => i % 4 === 0).map(value => value / 255)"""
    )
    # The mean of 100 masks with p = 1/2 has, for a pixel, a standard deviation of a tenth of it.
    # Then the mean of all distances is below a tenth of the mean pixel, but for rounding.
    assert np.abs(brightness - image).mean() < 0.1 * image.mean()


def test_without_javascript_the_page_says_so(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address("index.html"))
    assert page.locator("noscript").first.inner_text()
    assert page.locator("svg.network").is_visible()
    context.close()
