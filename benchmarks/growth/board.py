"""A leaderboard of n rows, 6 figures and 5,000 prompts: tests of all pairs, the page, and the check of old rows.

Rows of old versions have percentile bootstrap intervals, which are drawn again to check them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

SIZES = (5, 10, 20)
FIGURES, PROMPTS = 6, 5000


def rows(count: int):  # type: ignore[no-untyped-def]
    """Rows of generators that differ a little."""
    import torch

    from dipp_toolkit.experiments.bench.rows import EvaluationProtocol, Row, Subject
    from dipp_toolkit.experiments.bench.statistics import mean_figure

    random = torch.Generator().manual_seed(0)
    hard = torch.randn(FIGURES, PROMPTS, generator=random, dtype=torch.float64)
    protocol = EvaluationProtocol(prompts="p", digest="0" * 64, count=PROMPTS, seeds=(1,), size=(8, 8))
    made = []
    for number in range(count):
        scores = hard + torch.randn(FIGURES, PROMPTS, generator=random, dtype=torch.float64) + 0.02 * number
        figures = {
            f"figure {index}": mean_figure(values, [""] * PROMPTS, "reward" if index else "judge", "higher")
            for index, values in enumerate(scores)
        }
        subject = Subject(label=f"generator {number}", fingerprint=f"{number:064x}")
        made.append(Row(subject=subject, protocol=protocol, figures=figures, command="dipp bench"))
    return made


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time."""
    from dipp_toolkit.experiments.bench.rows import write_rows
    from dipp_toolkit.experiments.leaderboard.board import make_board
    from dipp_toolkit.experiments.leaderboard.check import check_files
    from dipp_toolkit.experiments.leaderboard.page import render

    made = rows(n)
    render(make_board(made[:2]), "first")  # libraries are loaded before anything is measured
    started = time.process_time()
    board = make_board(made)
    ranked = time.process_time()
    render(board, "page")
    shown = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        write_rows(path, made)
        written = time.process_time()
        check_files([path])
    return {
        "seconds to test all pairs": ranked - started,
        "seconds for the page": shown - ranked,
        "seconds to check rows of old versions": time.process_time() - written,
    }
