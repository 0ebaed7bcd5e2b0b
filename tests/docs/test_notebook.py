"""The notebook of the guide runs from its first cell to its last, in a kernel of its own, and shows what it says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from documented import ROOT

NOTEBOOK = ROOT / "docs" / "guide" / "notebook.ipynb"


def outputs_of(cells: list[Any], start: str) -> list[dict[str, Any]]:
    """What the cell whose code starts so shows, by media type."""
    (cell,) = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).startswith(start)]
    return [output["data"] for output in cell["outputs"] if "data" in output]


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "plugins"), *sys.path[1:]]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "here"}
    place = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps({**kernel, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    (shown,) = outputs_of(notebook.cells, "result = train(")
    assert "before and after" in shown["text/html"] and "image/png" in shown
    assert shown["text/plain"].startswith("<RunResult 'runs/warm', 4 steps; warmth ")
    (picture,) = outputs_of(notebook.cells, "generate(")
    assert "image/png" in picture
    assert "emoji-judge" in outputs_of(notebook.cells, "found = bench(")[0]["text/html"]
    assert (tmp_path / "runs" / "warm" / "final" / "model_index.json").is_file()
