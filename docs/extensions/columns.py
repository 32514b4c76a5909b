"""The directive `columns`: the files of that name in impls/, side by side, part by part.

A part is a function, a method, or what stands before the first function. It is read from the files
at each build, so the page cannot differ from the code.
"""

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}
TWINS = {"__call__": "forward"}  # names that differ, but mean the same
PREFACE = "imports"
DIFF = re.compile(r"# DIFF ([\w ]+: .*)")
LABELS = {
    "en": {PREFACE: "imports and names", "docstring": "docstring: ", "none": "not in {}"},
    "zh_CN": {PREFACE: "导入与命名", "docstring": "文档字符串：", "none": "{} 中没有"},
}


class Part(NamedTuple):
    """A part of a file: its first line, counted from 1, and the lines of each of its rows."""

    line: int
    signature: list[int]
    docstring: list[int]
    body: list[int]


def parts_of(source: str) -> dict[str, Part]:
    """Return the parts of a file by name, in the order of the file.

    Every line is in one part, but for blank lines between two parts.
    """
    lines, tree = source.splitlines(), ast.parse(source)
    parts: dict[str, Part] = {}
    done = 0

    def until(node: ast.stmt) -> int:
        """Return the first line of a statement, with its decorators and the comments above."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while first - 2 >= done and lines[first - 2].strip().startswith("#"):
            first -= 1
        return first

    def add(name: str, first: int, header: int, body: list[ast.stmt], last: int) -> None:
        docstring: list[int] = []
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            docstring = list(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
        rest = list(range((docstring[-1] if docstring else header) + 1, last + 1))
        while rest and not lines[rest[0] - 1].strip():
            rest.pop(0)
        while rest and not lines[rest[-1] - 1].strip():
            rest.pop()
        parts[name] = Part(first, list(range(first, header + 1)), docstring, rest)

    def definitions(statements: list[ast.stmt], prefix: str = "") -> Iterator[ast.stmt]:
        nonlocal done
        for node in statements:
            if isinstance(node, ast.ClassDef):
                methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
                first, header = until(node), node.body[0].lineno - 1
                last = until(methods[0]) - 1 if methods else node.end_lineno or 0
                add(node.name, first, header, node.body, last)
                done = last
                yield from definitions(list(methods), f"{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                name = prefix + TWINS.get(node.name, node.name)
                header = node.body[0].lineno - 1
                add(name, until(node), header, node.body, node.end_lineno or 0)
                done = node.end_lineno or 0
            else:
                yield node

    others = list(definitions(tree.body))
    preface = [n for n in others if n.lineno < min(p.line for p in parts.values())]
    parts = {PREFACE: Part(1, [], [], [])} | parts
    last = max(n.end_lineno or 0 for n in preface)
    add(PREFACE, 1, 0, tree.body, last)
    for node in others:
        if node not in preface:
            add(ast.unparse(node).split(":")[0].split(" = ")[0], until(node), node.end_lineno or 0,
                [], node.end_lineno or 0)  # fmt: skip
    return dict(sorted(parts.items(), key=lambda item: item[1].line))


def order(files: dict[str, dict[str, Part]]) -> list[str]:
    """Return the names of all parts: those of the first file, with the others where they belong."""
    names: list[str] = []
    for parts in files.values():
        place = 0
        for name in parts:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def reason_at(lines: list[str], i: int) -> str:
    """Return the topic and the reason of a DIFF comment, which may go on in the lines below."""
    found = DIFF.search(lines[i])
    assert found
    reason = found[1]
    for line in lines[i + 1 :]:
        if reason.endswith(".") or not line.strip().startswith("#"):
            break
        reason += f" {line.strip('# ')}"
    return reason


def highlighted(source: str) -> list[str]:
    """Return each line as HTML. Lines that a DIFF comment is about are marked with its reason."""
    html = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).splitlines()
    lines = source.splitlines()
    # Pygments leaves out blank lines at both ends, and these files have none.
    result, reason = [], ""
    for i, (line, code) in enumerate(zip(lines, html, strict=True)):
        found = DIFF.search(line)
        alone = line.strip().startswith("#")
        reason = reason_at(lines, i) if found else reason
        if reason and (found or alone or line.strip()):
            code = (
                f'<span class="diff" tabindex="0" role="note" data-reason="{escape(reason)}" '
                f'aria-label="DIFF {escape(reason)}">{code}</span>'
            )
        if not alone:
            reason = ""
        result.append(f'<span class="line">{code or " "}</span>')
    return result


class Columns(SphinxDirective):
    """`{columns} dropout`: impls/torch/dropout.py, impls/jax/dropout.py, impls/numpy/dropout.py."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the columns as HTML."""
        name = self.arguments[0]
        paths = {f: ROOT / "impls" / f / f"{name}.py" for f in FRAMEWORKS}
        paths = {f: path for f, path in paths.items() if path.exists()}
        if not paths:
            raise self.error(f"no file {name}.py in impls/")
        for path in paths.values():
            self.env.note_dependency(str(path))
        sources = {f: path.read_text() for f, path in paths.items()}
        html = {f: highlighted(source) for f, source in sources.items()}
        files = {f: parts_of(source) for f, source in sources.items()}
        labels = LABELS[self.config.language]
        rows = [_part(name, part, files, html, labels) for part in order(files)]
        heads = "".join(f"<div>{FRAMEWORKS[f]}</div>" for f in paths)
        text = (
            f'<div class="columns" style="--columns: {len(paths)}" data-file="{name}">'
            f'<div class="row head">{heads}</div>{"".join(rows)}</div>'
        )
        return [nodes.raw("", text, format="html")]


def _part(
    name: str, part: str, files: dict[str, Any], html: dict[str, Any], labels: dict[str, str]
) -> str:
    """Return one part in all columns: signature, docstring to be unfolded, body."""

    def row(which: str, kind: str) -> str:
        cells = []
        for framework, parts in files.items():
            start = f'<div class="cell" data-framework="{framework}">'
            if part not in parts:
                text = labels["none"].format(FRAMEWORKS[framework])
                cells.append(start + (f'<p class="none">{text}</p></div>' if kind else "</div>"))
                continue
            line, path = parts[part].line, f"impls/{framework}/{name}.py"
            where = f'<a class="where" href="source/{path}.html#L{line}">{path}:{line}</a>'
            code = "".join(html[framework][i - 1] for i in getattr(parts[part], which))
            block = f'<pre class="highlight"><code>{code}</code></pre>' if code else ""
            cells.append(f"{start}{where if kind else ''}{block}</div>")
        return f'<div class="row">{"".join(cells)}</div>'

    parts = [of[part] for of in files.values() if part in of]
    anchor = f"{name}-{part.replace('.', '-')}"
    title = labels.get(part, part)
    result = f'<section class="part" id="{anchor}"><h3>{escape(title)}</h3>'
    result += row("signature", "first")
    if any(p.docstring for p in parts):
        summary = f"<summary>{labels['docstring']}{escape(title)}</summary>"
        result += f"<details>{summary}{row('docstring', '')}</details>"
    if any(p.body for p in parts):
        result += row("body", "")
    return result + "</section>"


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file of impls/, with numbered lines that can be linked to."""
    if app.config.language != "en":  # shared.py lets every language use the English ones
        return
    formatter = HtmlFormatter(linenos="inline", lineanchors="L")
    for path in sorted((ROOT / "impls").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        body = highlight(path.read_text(), PythonLexer(), formatter).replace('id="L-', 'id="L')
        yield f"source/{name}", {"title": name, "body": body}, "source.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive and the pages of source."""
    app.add_directive("columns", Columns)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": True}
