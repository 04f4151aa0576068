"""The notebooks run from top to bottom, where nbclient is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
FOLDER = ROOT / "examples" / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    if any("from sae_lens import" in cell.source for cell in notebook.cells):
        pytest.importorskip("sae_lens")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert shown and not [o for o in shown if o.output_type == "error"]
