"""The directives `network` and `live`: the drawing of the lesson, and the piece to play with."""

import json
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from shared.data import load

LABELS = {
    "en": {
        "network": "The network of the lesson, and the same network with two hidden units dropped",
        "whole": "without dropout",
        "thinned": "h₂ and h₅ dropped",
        "p": "probability p of dropping a unit",
        "seed": "seed of the key",
        "key": "key",
        "again": "again",
        "split": "split",
        "fold_in": "fold_in",
        "reset": "start over",
        "dropped": "dropped",
        "numbers": "the 16 numbers of the demonstration, after dropout",
        "image": "784 units: the pixels of an image",
        "mask": "after dropout",
        "mean": "mean of all masks so far",
        "plot": "distance of the mean from the image (root mean square), both axes logarithmic",
        "masks": "masks:",
        "distance": "distance",
        "theory": "theory: 1 / √n",
        "script": "This part needs JavaScript. All else on the page works without it.",
    },
    "zh_CN": {
        "network": "本课的网络，以及丢弃两个隐藏单元后的同一网络",
        "whole": "不使用暂退法",
        "thinned": "h₂ 和 h₅ 被丢弃",
        "p": "丢弃一个单元的概率 p",
        "seed": "密钥的种子",
        "key": "密钥",
        "again": "再来一次",
        "split": "split（拆分）",
        "fold_in": "fold_in（折入）",
        "reset": "重新开始",
        "dropped": "被丢弃",
        "numbers": "演示用的 16 个数，经过暂退法之后",
        "image": "784 个单元：一幅图像的像素",
        "mask": "经过暂退法之后",
        "mean": "至今所有掩码的均值",
        "plot": "均值与原图像的距离（均方根），两轴均为对数刻度",
        "masks": "掩码个数：",
        "distance": "距离",
        "theory": "理论：1 / √n",
        "script": "这一部分需要 JavaScript。页面的其余内容不需要它。",
    },
}
INPUTS, HIDDEN, OUTPUTS = 4, 5, 3
DROPPED = {2, 5}


def network(left: float, dropped: set[int], title: str) -> str:
    """Return one network as SVG, with its lower edge at the title."""

    def heights(units: int) -> list[float]:
        return [110 + 40 * (i - (units - 1) / 2) for i in range(units)]

    layers = [("x", INPUTS), ("h", HIDDEN), ("o", OUTPUTS)]
    places = [
        {i + 1: (left + 25 + 90 * column, y) for i, y in enumerate(heights(units))}
        for column, (_, units) in enumerate(layers)
    ]
    lines, units = [], []
    for column in (0, 1):
        for i, (x1, y1) in places[column].items():
            for j, (x2, y2) in places[column + 1].items():
                if (j if column == 0 else i) not in dropped:
                    lines.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for (name, _), places_of in zip(layers, places, strict=True):
        for i, (x, y) in places_of.items():
            gone = name == "h" and i in dropped
            kind = f'class="{"gone" if gone else name}"'
            units.append(
                f'<circle {kind} cx="{x}" cy="{y}" r="15"/><text x="{x}" y="{y + 4}">{name}'
                f'<tspan dy="4" font-size="70%">{i}</tspan></text>'
            )
    caption = f'<text class="caption" x="{left + 115}" y="235">{title}</text>'
    return "".join([*lines, *units, caption])


class Network(SphinxDirective):
    """The article's network, whole and with two hidden units dropped."""

    def run(self) -> list[nodes.Node]:
        """Return an SVG picture."""
        labels = LABELS[self.config.language]
        pictures = network(0, set(), labels["whole"]) + network(260, DROPPED, labels["thinned"])
        return [nodes.raw("", (
            f'<svg class="network" viewBox="0 0 490 245" role="img" '
            f'aria-label="{labels["network"]}">{pictures}</svg>'
        ), format="html")]  # fmt: skip


class Live(SphinxDirective):
    """Dropout in the reader's browser. static/live.js brings it to life."""

    def run(self) -> list[nodes.Node]:
        """Return its place on the page, with the pixels of a test image of the sample."""
        labels = LABELS[self.config.language]
        pixels = load("sample").test_images[0].ravel().tolist()
        data = escape(json.dumps(pixels, separators=(",", ":")))
        words = escape(json.dumps(labels, ensure_ascii=False))
        start = f'<div class="live" id="live" data-pixels="{data}" data-labels="{words}">'
        text = f"{start}<noscript><p>{labels['script']}</p></noscript></div>"
        return [nodes.raw("", text, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add both directives. The scripts are loaded on every page, because they are small."""
    app.add_directive("network", Network)
    app.add_directive("live", Live)
    return {"parallel_read_safe": True}
