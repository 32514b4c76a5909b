"""What all commands that draw need of matplotlib."""

from pathlib import Path
from types import ModuleType

from shared.checks import InputError


def pyplot(*paths: Path) -> ModuleType:
    """Return `matplotlib.pyplot`, for pictures in files. Call it before hours of work.

    Args:
        paths: where pictures will be written. Their folder is made.

    Raises:
        InputError: matplotlib is not installed, or a name does not end in .png or .svg.
        OSError: a file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("a picture needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for path in paths:
        if path.suffix not in (".png", ".svg"):
            raise InputError(f"the name of a picture must end in .png or .svg, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()
    return pyplot
