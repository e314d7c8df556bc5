"""The notebook of the documentation runs from nothing to its last figure."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROJECT

NOTEBOOK = PROJECT / "docs" / "tutorial.ipynb"


@pytest.mark.long
def test_the_tutorial_runs_from_nothing_to_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shutil.copy(NOTEBOOK, tmp_path)
    book = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    (parameters,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", ())]
    # The network learns nothing in one epoch, but every cell has something to show.
    parameters.source = "clips, epochs = 72, 1"
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 3
    assert "top-1 " in printed
    assert "report: report.html" in printed
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_the_tutorial_is_kept_without_outputs() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells)
