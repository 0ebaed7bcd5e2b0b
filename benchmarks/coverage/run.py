"""How often a 95 % interval of a mean over prompts holds the true mean, with few prompts and many, skewed and not.

    python benchmarks/coverage/run.py

Sets of scores are drawn whose true mean is known; of each the interval of `dipp_toolkit.evaluation.intervals` is taken,
and beside it Student's and the percentile bootstrap's. Writes results.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from scipy.stats import t
from torch import Tensor

from dipp_toolkit.evaluation.intervals import Interval, bootstrap_interval, mean_interval, share_interval
from dipp_toolkit.utils.atomic import write_text

RESULTS = Path(__file__).with_name("results.md")
COUNTS = (8, 16, 64, 352)
Draw = Callable[[int, torch.Generator], Tensor]


def _normal(count: int, random: torch.Generator, *noises: int) -> Tensor:
    return torch.randn(count, *noises, generator=random, dtype=torch.float64)


def _uniform(count: int, random: torch.Generator, *noises: int) -> Tensor:
    return torch.rand(count, *noises, generator=random, dtype=torch.float64).clamp(min=1e-15)


SCORES: dict[str, tuple[Draw, float]] = {
    "normal": (_normal, 0.0),
    "normal, two skewed noises a prompt": (lambda n, r: _normal(n, r, 1) - _uniform(n, r, 2).log() / 2 - 0.5, 0.0),
    "uniform": (_uniform, 0.5),
    "heavy tails (Student, 3 degrees)": (
        lambda n, r: _normal(n, r) / (_normal(n, r, 3).square().sum(1) / 3).sqrt(),
        0.0,
    ),
    "share crowded at 0 (cube of uniform)": (lambda n, r: _uniform(n, r).pow(3), 0.25),
    "lognormal, sigma 0.5 (skewness 1.8)": (lambda n, r: (0.5 * _normal(n, r)).exp(), math.exp(0.125)),
    "exponential (skewness 2)": (lambda n, r: -_uniform(n, r).log(), 1.0),
    "lognormal, sigma 1 (skewness 6.2)": (lambda n, r: _normal(n, r).exp(), math.exp(0.5)),
}
SHARES: dict[str, tuple[Draw, float]] = {
    f"wins, {share:g} of prompts": (lambda n, r, share=share: (_uniform(n, r) < share).double(), share)  # type: ignore[misc]
    for share in (0.5, 0.7, 0.95)
}


def student_interval(values: Tensor) -> Interval:
    """The mean plus and minus Student's quantile of its standard error."""
    flat = values.reshape(len(values), -1).mean(1)
    reach = float(t.ppf(0.975, len(flat) - 1)) * flat.std().item() / math.sqrt(len(flat))
    return Interval(flat.mean().item(), flat.mean().item() - reach, flat.mean().item() + reach)


def coverage(
    draw: Draw, truth: float, count: int, sets: int, method: Callable[[Tensor], Interval]
) -> tuple[float, float]:
    """Share of the sets whose interval holds the truth, and the median width."""
    random = torch.Generator().manual_seed(count)
    intervals = [method(draw(count, random)) for _ in range(sets)]
    widths = torch.tensor([interval.high - interval.low for interval in intervals], dtype=torch.float64)
    return sum(interval.contains(truth) for interval in intervals) / sets, widths.median().item()


def table(title: str, sets: int, method: Callable[[Tensor], Interval], cases: dict[str, tuple[Draw, float]]) -> str:
    """A row for each distribution: coverage in per cent, and the median width over Student's."""
    lines = [f"| {title} | {' | '.join(f'{count} prompts' for count in COUNTS)} |", "|---" * (len(COUNTS) + 1) + "|"]
    for name, (draw, truth) in cases.items():
        cells = []
        for count in COUNTS:
            held, width = coverage(draw, truth, count, sets, method)
            _, plain = coverage(draw, truth, count, min(sets, 1000), student_interval)
            cells.append(f"{100 * held:.1f} ({width / plain:.2f})" if plain else f"{100 * held:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(sets: int) -> Sequence[str]:
    """All tables; the bootstrap, which takes 2,000 resamples a set, has a fifth of the sets."""
    return (
        table("mean_interval", sets, mean_interval, SCORES),
        table("share_interval (Wilson)", sets, share_interval, SHARES),
        table("Student's t alone", sets, student_interval, SCORES | SHARES),
        table("percentile bootstrap", sets // 5, bootstrap_interval, SCORES | SHARES),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=5000, help="sets of scores for each number")
    sets = parser.parse_args().sets
    text = (
        f"# Coverage of intervals\n\nPer cent of {sets:,} sets whose 95 % interval holds the true mean; in parentheses "
        f"the median width over that of Student's interval. The percentile bootstrap: {sets // 5:,} sets. Chance alone "
        f"moves a number by {196 * math.sqrt(0.0475 / sets):.1f}.\n\n"
    )
    write_text(RESULTS, text + "\n\n".join(tables(sets)) + "\n")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
