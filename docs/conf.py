"""Settings of the site that `make page` builds, in English and in Chinese."""

import importlib
import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from experiments.exercises import EXERCISES  # noqa: E402  the path comes first

project = "Dropout, three ways"
TITLES = {"zh_CN": "暂退法的三种实现"}
copyright = "MIT licence"  # Sphinx calls it so
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx_design",
    "extensions.columns",
    "extensions.pictures",
    "extensions.tables",
    "extensions.mathml",
    "extensions.shared",
]
exclude_patterns = ["locale"]
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Written as jaxtyping writes it: Units is clearer than Float[Tensor, "*shape"].
autodoc_type_aliases = {name: name for name in ("Units", "Mask", "Source")}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_use_legacy_class_based = True
napoleon_numpy_docstring = False

language = "en"
locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False  # else a changed line number changes the catalogs
gettext_uuid = False
gettext_auto_build = True

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["page.css"]
html_js_files = ["threefry.js", "live.js", "page.js"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
templates_path = ["templates"]

# Pages that are files of another folder.
ELSEWHERE = {
    "contract": "contract/README.md",
    "limits": "contract/src/dropout_contract/limits.md",
}
# A section of README.md that comes at the end of a page.
SECTION = {"side-by-side": "## Where the frameworks differ"}
# What links to files in the repository, and to pages on the site.
LINKS = {
    "(../contract/README.md": "(contract.md",
    "(../README.md#where-the-frameworks-differ": "(side-by-side.md#where-the-frameworks-differ",
    "(src/dropout_contract/limits.md": "(limits.md",
    "Versions: [CHANGELOG.md](CHANGELOG.md).": "",
    "[runs.jsonl](runs.jsonl)": "`runs.jsonl`",  # megabytes
}
# What the list of the exercises gets, so that their pages are in the menu.
MENU = "\n```{toctree}\n:hidden:\n" + "\n".join(EXERCISES) + "\n```\n"


def linkcode_resolve(domain, info):
    """Return where the source of a function is, from reference.html."""
    found = importlib.import_module(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        return None
    path = info["module"].replace(".", "/")
    return f"source/{path}.py.html#L{inspect.getsourcelines(found)[1]}"


def setup(app):
    """Call `read` for each page and `show_commands` for each docstring, translate the title."""
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", show_commands)
    app.config.html_title = TITLES.get(app.config.language, project)


def show_commands(app, what, name, obj, options, lines):
    """Let the commands in the docstring of a module be code."""
    for i, line in reversed(list(enumerate(lines))):
        if what == "module" and line.startswith(("python ", "torchrun ", "mpirun ")):
            first = not lines[i - 1].strip()
            lines[i : i + 1] = [*(["::", ""] if first else []), f"    {line}"]


def read(app, name, content):
    """Change the text of a page after it was read."""
    if name in ELSEWHERE:
        content[0] = (ROOT / ELSEWHERE[name]).read_text()
    if name in SECTION:
        after = (ROOT / "README.md").read_text().split(SECTION[name])[1]
        content[0] += SECTION[name] + after.split("\n## ")[0].replace("](docs/", "](")
    for link, page in LINKS.items():
        content[0] = content[0].replace(link, page)
    if name == "exercises/README":
        content[0] += MENU
