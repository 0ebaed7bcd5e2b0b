"""What a surrogate learns where prompts differ by ten times as much as the images of one prompt.

    python benchmarks/black_box/within_prompts.py --seeds 5

The world is `prompt_offsets.py`: 64 prompts, latents (4, 8, 8), a smooth score whose gradient is known, offsets of
deviation 1 between the prompts, scores of deviation 0.1 within one. Writes within_prompts.json and within_prompts.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.black_box.prompt_offsets import Learned, PromptOffsets, curved, learn, linear
from dipp_toolkit.objective.estimators.surrogate import Surrogate

HERE = Path(__file__).parent
SHAPES = {"linear": linear, "saturated and curved": curved}
BATCHES = ((32, 1), (1, 8))
"""Samples a pass, and passes an update."""


def spread(numbers: Sequence[float]) -> str:
    """Mean, least and largest."""
    return f"{statistics.mean(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def row(shape: str, between: float, batch: tuple[int, int], runs: Sequence[Learned], updates: int) -> str:
    """A row of the table."""
    first = ", ".join(str(run.first) if run.first else "never" for run in runs)
    cells = [
        shape, f"{between:g}", f"{batch[0]} x {batch[1]}", spread([run.cosine for run in runs]),
        spread([run.length for run in runs]), spread([run.correlation for run in runs]),
        f"{first} of {updates}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Learn every world and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=50)
    words = parser.parse_args()
    lines = [
        "| score within a prompt | deviation between prompts | samples x passes | cosine with the true gradient "
        "| its length over the true one's | rank correlation at the end | first trusted in update, each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    results = []
    for name, shape in SHAPES.items():
        for between, batch in ((1.0, BATCHES[0]), (0.0, BATCHES[0]), (1.0, BATCHES[1])):
            runs = [
                learn(PromptOffsets(seed, shape, between), Surrogate(seed=seed), words.updates, *batch)
                for seed in range(words.seeds)
            ]
            results.append({"shape": name, "between": between, "batch": batch, "runs": [asdict(run) for run in runs]})
            lines.append(row(name, between, batch, runs, words.updates))
            print(lines[-1], flush=True)
    note = f"{words.seeds} seeds, {words.updates} updates; deviation 0.1 within a prompt. Mean (least to largest)."
    text = "\n".join(lines) + f"\n\n{note}\n"
    (HERE / "within_prompts.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "within_prompts.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
