"""The translations of the site: what must be translated, and whether numbers were kept."""

import re
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[2]
CATALOGS = ROOT / "docs" / "locale" / "zh_CN" / "LC_MESSAGES"
TEMPLATES = ROOT / "build" / "gettext"
# Code, addresses of links, and names: the same in every language.
SAME = re.compile(
    r"``.+?``|`[^`]+`|\]\([^)]*\)|https?://\S+|\b("
    r"PyTorch|JAX|NumPy|Flax|Keras|Equinox|Haiku|MNIST|CIFAR|GPU|CPU|TPU|DIFF|float\d+|bfloat\d+|"
    r"(?:torch|flax|keras|jax|equinox|haiku|impls|benchmarks|nn|nnx)(?:\.\w+)+|\w+_\w+(?:\.\w+)?|"
    r"torch|jax|numpy|flax|optax|python|"
    r"sum|exp|log|sqrt|Var|in|at|max|min)\b"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")


def read(path: Path) -> Catalog:
    """Return a catalog, or a template."""
    with path.open("rb") as file:
        return read_po(file, locale="zh_CN")


def messages(catalog: Catalog) -> dict[str, Message]:
    """Return the messages by their English text, without the header."""
    return {str(message.id): message for message in catalog if message.id}


def is_neutral(text: str) -> bool:
    """Whether a text holds no word to translate: numbers, code and names only."""
    return not re.search(r"[A-Za-z]{2,}", SAME.sub(" ", text))


def numbers(text: str) -> list[str]:
    """Return the numbers in a text, sorted: the order of words may change."""
    return sorted(NUMBER.findall(text))
