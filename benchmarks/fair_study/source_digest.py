"""A digest of the code that decides the study's numbers, blind to comments, docstrings and blank lines."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (
    "dipp_toolkit/diffusion/**/*.py",
    "dipp_toolkit/objective/**/*.py",
    *(
        f"dipp_toolkit/training/{name}.py"
        for name in ("assistant", "ema", "engine", "guard", "loop", "micro_batches", "optim", "setup/assembly")
    ),
    *(
        f"dipp_toolkit/models/{name}.py"
        for name in ("decoding", "few_steps", "generator", "readout", "reference", "sampling")
    ),
    "dipp_toolkit/prompts/sampler.py",
    *(f"dipp_toolkit/evaluation/{name}.py" for name in ("diversity", "frechet")),
    *(f"plugins/dipp_emoji/{name}.py" for name in ("captions", "compose", "judge", "rewards", "text")),
    *(f"benchmarks/_shared/{name}.py" for name in ("emoji_columns", "teacher")),
    *(f"benchmarks/fair_study/{name}.py" for name in ("anchors", "doing", "sittings")),
)
"""Patterns below the checkout: what trains, what makes images, and what judges them."""


@cache
def plain_code(text: str) -> str:
    """Python code without its comments, docstrings (any string that stands alone) and blank lines.

    What is left is as it was written, so that it is the same for every version of Python.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column]
    rows = [line.encode() for line in lines]
    alone = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    for node in alone:
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        rest = rows[last][node.end_col_offset :]
        kept = rows[first][: node.col_offset]
        rows[first : last + 1] = [kept + rest, *[b""] * (last - first)]
    return "\n".join(row.decode().rstrip() for row in rows if row.strip())


def source_digest(root: Path = ROOT, patterns: Sequence[str] = CODE) -> str:
    """SHA-256 over the names and the plain code of all files of the patterns.

    Raises:
        FileNotFoundError: a pattern has no file: it has moved, and the patterns have to follow.
    """
    digest = hashlib.sha256()
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if not files:
            raise FileNotFoundError(f"No file below {root} is {pattern}. Where has it moved? Change CODE accordingly.")
        for path in files:
            digest.update(
                f"{path.relative_to(root).as_posix()}\n{plain_code(path.read_text(encoding='utf-8'))}\n".encode()
            )
    return digest.hexdigest()
