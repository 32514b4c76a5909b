"""The notebook: its two files are the same, and all of it runs."""

import time
from pathlib import Path

import jupytext
import nbclient
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_notebook_is_that_of_its_source():
    source = jupytext.read(FOLDER / "dropout.py")
    notebook = jupytext.read(FOLDER / "dropout.ipynb")
    assert cells(notebook) == cells(source), "run: make notebook"
    assert not any(cell.get("outputs") for cell in notebook.cells)  # who runs it sees them


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter are not ours
def test_notebook_runs_and_shows_what_it_says(tmp_path: Path):
    notebook = jupytext.read(FOLDER / "dropout.ipynb")
    started = time.monotonic()
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert time.monotonic() - started < 120  # 60 on a quiet machine, and this one is not quiet
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "as in JAX: True\nas in PyTorch: True" in printed
    assert "50 steps" in printed
    largest = float(printed.split("largest difference of a loss: ")[1].split()[0])
    assert 0 < largest < 1e-12
    figures = [
        output for cell in notebook.cells for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]  # fmt: skip
    assert len(figures) == 2
