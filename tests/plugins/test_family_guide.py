"""docs/guide/a-family.md: its blocks, installed as a stranger would, keep the contract of a family."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide" / "a-family.md"


def block(language: str, beginning: str) -> str:
    """The guide's block that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if text.startswith(beginning)]
    return found


@pytest.mark.slow
def test_the_familys_blocks_keep_the_contract(tmp_path: Path) -> None:
    project, site = tmp_path / "dipp-auraflow", tmp_path / "site"
    package = project / "dipp_auraflow"
    package.mkdir(parents=True)
    (project / "pyproject.toml").write_text(block("toml", "[build-system]"), encoding="utf-8")
    for name in ("__init__.py", "family.py"):
        (package / name).write_text(block("python", f"# {name}"), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(site), str(project)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    path = os.pathsep.join(map(str, (site, ROOT, ROOT / "plugins", ROOT / "cli")))
    checked = subprocess.run(
        [sys.executable, "-m", "dipp_cli", "plugins", "check", "AuraFlowPipeline"],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "keeps all" in checked.stdout
