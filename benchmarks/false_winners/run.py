"""How often a bench of generators that are all the same calls one of them better.

    python benchmarks/false_winners/run.py

Every generator has the same score of every prompt but for its noises, in every figure. Counted are the benches in which
anything is called better, by the rule of `dipp_toolkit.experiments.bench.paired_tests` and, beside it, by a single
pair's interval that leaves zero out. Writes results.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from dipp_toolkit.experiments.bench.paired_tests import compare_section
from dipp_toolkit.experiments.bench.rows import EvaluationProtocol, Figure, Row, Subject
from dipp_toolkit.utils.atomic import write_text

RESULTS = Path(__file__).with_name("results.md")
GENERATORS, FIGURES, PROMPTS = (3, 5, 10), (1, 6), (8, 64)


def equal_rows(generators: int, figures: int, prompts: int, random: torch.Generator) -> list[Row]:
    """Rows of generators that differ by their noises alone; every second figure has a long tail."""
    hard = torch.randn(figures, prompts, generator=random, dtype=torch.float64)
    own = torch.randn(generators, figures, prompts, generator=random, dtype=torch.float64)
    scores = hard + own
    scores[:, 1::2] = scores[:, 1::2].exp()
    protocol = EvaluationProtocol(prompts="p", digest="0" * 64, count=prompts, seeds=(1,), size=(8, 8))
    return [
        Row(
            subject=Subject(label=f"generator {number}"),
            protocol=protocol,
            figures={
                f"figure {index}": Figure(mean=values.mean().item(), per_prompt=tuple(values.tolist()))
                for index, values in enumerate(own_scores)
            },
        )
        for number, own_scores in enumerate(scores)
    ]


def false_winners(generators: int, figures: int, prompts: int, benches: int) -> tuple[float, float]:
    """Share of benches with a winner: by the rule, and by any pair's own interval."""
    random = torch.Generator().manual_seed(prompts)
    called = alone = 0
    for _ in range(benches):
        compared = compare_section(equal_rows(generators, figures, prompts, random))
        called += bool(compared.beaten)
        alone += any(pair.low > 0 or pair.high < 0 for pair in compared.pairs)
    return called / benches, alone / benches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benches", type=int, default=1000, help="benches for each number")
    benches = parser.parse_args().benches
    lines = [
        f"# Winners among generators that are all the same\n\nPer cent of {benches:,} benches in which a generator is "
        "called better by any figure; in parentheses, were each pair's own 95 % interval enough. Chance alone moves a "
        f"number by {196 * math.sqrt(0.0475 / benches):.1f}.\n",
        f"| generators, figures | {' | '.join(f'{count} prompts' for count in PROMPTS)} |",
        "|---" * (len(PROMPTS) + 1) + "|",
    ]
    for generators in GENERATORS:
        for figures in FIGURES:
            cells = []
            for prompts in PROMPTS:
                called, alone = false_winners(generators, figures, prompts, benches)
                cells.append(f"{100 * called:.1f} ({100 * alone:.1f})")
            lines.append(f"| {generators}, {figures} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    write_text(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
