"""docs/reliability.md, made from the figures that were measured."""

from typing import Any


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    return str(results)
