"""The oldest versions that pyproject.toml allows, as pip's constraints: `python tools/oldest.py > oldest.txt`.

    python -m venv .venv-oldest
    .venv-oldest/bin/pip install --constraint oldest.txt --editable '.[rewards,t5]'
    .venv-oldest/bin/pip install beartype choix httpx hypothesis pytest
    .venv-oldest/bin/python -m pytest tests/models tests/planning

A lower bound is true when that passes; where a test is about something that an older library cannot do, the library's
bound is raised.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def oldest(dependencies: list[str]) -> list[str]:
    """A line `name==version` for each dependency that has a lower bound."""
    lines = []
    for requirement in map(Requirement, dependencies):
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        lines += [f"{requirement.name}=={version}" for version in bounds]
    return lines


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(oldest(project["dependencies"])))
