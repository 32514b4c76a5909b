"""The directives `clauses` and `flags`: tables that are read from the programs themselves."""

import dataclasses
import importlib
import json
from importlib.resources import files
from typing import Any

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
        owners = [base.__name__ for base in settings.__mro__]  # of inherited fields, too
        rows: list[list[nodes.Node]] = []
        for field in dataclasses.fields(settings):
            owner = next(owner for owner in owners if (owner, field.name) in docs)
            text = " ".join(docs[owner, field.name]).strip()
            default = field.default if isinstance(field.default, tuple) else [field.default]
            shown = [str(value) for value in default if value is not dataclasses.MISSING]
            flag = f"--{field.name.replace('_', '-')}"
            rows.append([literals(flag), literals(*shown), nodes.paragraph(text, text)])
        return [table(self, ["flag", "default", "meaning"], rows)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add both directives."""
    app.add_directive("clauses", Clauses)
    app.add_directive("flags", Flags)
    return {"parallel_read_safe": True}
