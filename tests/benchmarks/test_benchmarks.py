"""Benchmarks are a folder each, are listed, import what exists, and can be started as files."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from benchmarks.kill_resume.killed_in_phase import LINES, PHASES, located

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(BENCHMARKS.glob("*/*.py"))


def test_every_benchmark_is_a_folder_that_the_list_names() -> None:
    assert [path.name for path in BENCHMARKS.glob("*.py")] == ["__init__.py"]
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in FILES} - {"_shared"}
    assert [name for name in sorted(folders) if f"]({name}/run.py)" not in page] == []
    records = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.glob("*/*.md")}
    assert [record for record in sorted(records) if f"]({record})" not in page] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_its_modules_import(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.parent.name}.{path.stem}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_script_finds_the_checkout_before_it_imports_from_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [
        node.lineno
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks.")
    ]
    if lines and '__name__ == "__main__"' in text:
        before = "\n".join(text.splitlines()[: lines[0] - 1])
        assert "sys.path.insert(0, str(Path(__file__).parents[2]))" in before


def test_phases_in_which_a_training_is_killed_exist() -> None:
    for place in [*(place for places in PHASES.values() for place in places), LINES]:
        owner, name = located(place)
        assert callable(getattr(owner, name)), place
