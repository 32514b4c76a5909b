"""The directives `clauses`, `flags` and `rows`: tables of what programs say and measure."""

import dataclasses
import importlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import tyro
from docutils import nodes
from dropout_contract.clauses import ORDERED
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


def table(
    directive: SphinxDirective, header: list[str], rows: list[list[nodes.Node]]
) -> nodes.table:
    """Return a table. Its text is translated like any other, since it has a source."""
    group = nodes.tgroup("", cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    head = nodes.row("", *(nodes.entry("", nodes.paragraph(text, text)) for text in header))
    body = [nodes.row("", *(nodes.entry("", node) for node in row)) for row in rows]
    group += [nodes.thead("", head), nodes.tbody("", *body)]
    result = nodes.table("", group)
    for paragraph in result.findall(nodes.paragraph):
        directive.set_source_info(paragraph)
    return result


def literals(*words: str) -> nodes.paragraph:
    """Return words as code, separated by spaces. They are the same in every language."""
    children = [node for word in words for node in (nodes.literal(word, word), nodes.Text(" "))]
    paragraph = nodes.paragraph("", "", *children[:-1])
    paragraph["translatable"] = False
    return paragraph


class Clauses(SphinxDirective):
    """The clauses of the contract, each with the wrong dropouts that it finds."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        found = json.loads(files("dropout_contract").joinpath("mutants/killed_by.json").read_text())
        rows: list[list[nodes.Node]] = []
        for clause in ORDERED:
            mutants = [mutant for mutant, name in found.items() if name == clause.name]
            sentence = nodes.paragraph(clause.sentence, clause.sentence)
            tier = nodes.paragraph(clause.tier, clause.tier)
            says = nodes.container("", literals(clause.name), sentence)
            rows.append([says, tier, literals(*mutants)])
        return [table(self, ["what the clause says", "tier", "wrong dropouts that it finds"], rows)]


class Flags(SphinxDirective):
    """`{flags} shared.config:Config`: the flags that the command line makes from a dataclass."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        module, _, name = self.arguments[0].partition(":")
        settings = getattr(importlib.import_module(module), name)
        docs = ModuleAnalyzer.for_module(module).find_attr_docs()
        hints = get_type_hints(settings, include_extras=True)
        owners = [base.__name__ for base in settings.__mro__]  # of inherited fields, too
        rows: list[list[nodes.Node]] = []
        for field in dataclasses.fields(settings):
            owner = next(owner for owner in owners if (owner, field.name) in docs)
            text = " ".join(docs[owner, field.name]).strip()
            default = field.default if isinstance(field.default, tuple) else [field.default]
            shown = [str(value) for value in default if value is not dataclasses.MISSING]
            marks = getattr(hints[field.name], "__metadata__", ())
            dashes = f"--{field.name.replace('_', '-')}"
            flag = field.name.upper() if tyro.conf.Positional in marks else dashes
            rows.append([literals(flag), literals(*shown), nodes.paragraph(text, text)])
        return [table(self, ["flag", "default", "meaning"], rows)]


class Rows(SphinxDirective):
    """`{rows} equality`: a table of docs/parallel.json. The content is its head."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        record = Path(self.env.srcdir) / "parallel.json"
        self.env.note_dependency(str(record))
        rows = json.loads(record.read_text())[self.arguments[0]]
        header = [cell.strip() for cell in " ".join(self.content).split("|")]
        return [table(self, header, [[_cell(cell) for cell in _cells(row)] for row in rows])]


def _cells(row: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in row.strip("| ").split("|")]


def _cell(text: str) -> nodes.paragraph:
    """Return a cell: code, a figure, or words. Only words are translated."""
    if text.startswith("`"):
        return literals(text.strip("`"))
    paragraph = nodes.paragraph(text, text)
    paragraph["translatable"] = text[0].isalpha()
    return paragraph


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("clauses", Clauses)
    app.add_directive("flags", Flags)
    app.add_directive("rows", Rows)
    return {"parallel_read_safe": True}
