"""Formulas as MathML, which browsers draw by themselves: no script, no font to be loaded."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

WORDS = {"zh_CN": {"with probability": "概率为", "otherwise": "其他情况"}}


def visit_math(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    text = node.astext()
    for english, word in WORDS.get(self.config.language, {}).items():
        text = text.replace(english, word)
    self.body.append(f'<div class="formula">{tex2mathml(text, as_block=True)}</div>')
    raise nodes.SkipNode


class Untranslated(SphinxTransform):
    """Keep formulas out of the catalogs: Sphinx would translate them as reStructuredText."""

    default_priority = 10  # before the translation

    def apply(self, **kwargs: Any) -> None:
        """Mark every formula."""
        for node in self.document.findall(nodes.math_block):
            node["translatable"] = False


def setup(app: Sphinx) -> dict[str, Any]:
    """Use these for HTML."""
    app.add_transform(Untranslated)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True}
