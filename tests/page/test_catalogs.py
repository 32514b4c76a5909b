"""Both languages are complete: each English sentence has its Chinese one, and none is stale."""

import re
import subprocess
import sys

import pytest

from tests.page.catalogs import CATALOGS, ROOT, TEMPLATES, is_neutral, messages, numbers, read

CODE = re.compile(r"``.+?``|`[^`]+`")
TARGET = re.compile(r"\]\(([^)]*)\)")


@pytest.fixture(scope="session")
def templates() -> dict[str, dict]:
    """The English texts of each page, extracted anew."""
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "gettext", "docs", str(TEMPLATES)]
    subprocess.run(command, cwd=ROOT, check=True)
    return {
        str(path.relative_to(TEMPLATES).with_suffix("")): messages(read(path))
        for path in TEMPLATES.rglob("*.pot")
    }


NAMES = sorted(
    str(path.relative_to(CATALOGS).with_suffix(""))
    for path in CATALOGS.rglob("*.po")
    if path.name != "sphinx.po"
)  # the theme's


def test_every_page_has_a_catalog(templates):
    assert sorted(templates) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_sentence_has_its_counterpart(name: str, templates):
    catalog = messages(read(CATALOGS / f"{name}.po"))
    assert sorted(catalog) == sorted(templates[name])
    assert not [text for text, message in catalog.items() if message.fuzzy]
    missing = [t for t, message in catalog.items() if not message.string and not is_neutral(t)]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_translations_keep_numbers_code_and_links(name: str):
    for text, message in messages(read(CATALOGS / f"{name}.po")).items():
        if message.string:
            assert numbers(message.string) == numbers(text), text
            for part in (CODE, TARGET):
                assert sorted(part.findall(message.string)) == sorted(part.findall(text)), text


def test_what_is_neutral():
    assert is_neutral("PyTorch -0.59 [-1.01, -0.17], n = 9; JAX -0.48 [-0.89, +0.30], n = 19")
    assert is_neutral("`python -m experiments all`")
    assert not is_neutral("Dropout in PyTorch")
    assert not is_neutral("open")
