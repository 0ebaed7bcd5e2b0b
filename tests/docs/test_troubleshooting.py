"""Every sentence that the troubleshooting page quotes is one that the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [line.split(" | ")[0].removeprefix("| ").strip("`") for line in PAGE.splitlines() if line.startswith("| `")]
GAP = "\x00"


def templates() -> list[str]:
    """The texts of the code, a gap for every value that is put in."""
    texts = []
    for room in ("dipp_toolkit", "cli"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values]
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


@pytest.fixture(scope="module")
def said() -> str:
    return "\n".join(templates())


def test_the_page_quotes_enough() -> None:
    assert len(QUOTED) >= 25
    assert all(len(max(sentence.split("…"), key=len)) > 10 for sentence in QUOTED)


@pytest.mark.parametrize("sentence", QUOTED)
def test_the_code_says_it(sentence: str, said: str) -> None:
    parts = [re.escape(part) for part in sentence.split("…")]
    assert re.search("[^\n]*?".join(parts), said, re.IGNORECASE), sentence
