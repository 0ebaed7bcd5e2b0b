"""How often a 95 % interval holds the true number of a whole set of images, such as a Frechet distance.

    python benchmarks/coverage/set_numbers.py

Sets of features are drawn from one law, and each is given the interval of a bench: of a Frechet distance by its
influence function, as the toolkit has it, and by 200 draws of each set; of an MMD by 200 draws. The true number is the
mean over all sets of that size, as finite sets bias it. Writes set_numbers.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.evaluation.intervals import student_quantile
from dipp_toolkit.evaluation.mmd import gaussian_mmd, kernel_mean, resampled_mmd
from dipp_toolkit.utils.atomic import write_text

RESULTS = Path(__file__).with_name("set_numbers.md")
COUNTS, DIMENSIONS = (8, 16, 64, 352), (16, 64)
REAL, RESAMPLES = 400, 200
Measure = Callable[[Tensor, torch.Generator], tuple[float, float]]


def draws(count: int, random: torch.Generator) -> Tensor:
    """How often each draw with replacement has each of so many images."""
    drawn = torch.randint(count, (RESAMPLES, count), generator=random)
    return torch.stack([draw.bincount(minlength=count) for draw in drawn]).double()


def set_numbers(dimensions: int) -> dict[str, Measure]:
    """By name, a number of a set of features against a fixed real one, and its standard error."""
    real = torch.randn(REAL, dimensions, generator=torch.Generator().manual_seed(10**6), dtype=torch.float64)
    reference, sigma = ReferenceFrechet(real), dimensions**0.5
    within = kernel_mean(real, real, sigma)

    def influence(made: Tensor, _: torch.Generator) -> tuple[float, float]:
        return reference.distance(made), reference.standard_error(made[:, None])

    def redrawn(made: Tensor, random: torch.Generator) -> tuple[float, float]:
        each = (torch.arange(len(made)).repeat_interleave(drawn.long()) for drawn in draws(len(made), random))
        distances = [reference.distance(made[rows]) for rows in each]
        return reference.distance(made), torch.tensor(distances).std().item()

    def discrepancy(made: Tensor, random: torch.Generator) -> tuple[float, float]:
        drawn = resampled_mmd(made, real, draws(len(made), random), sigma, within)
        return gaussian_mmd(made, real, sigma, within), drawn.std().item()

    return {
        f"Frechet distance, {dimensions} features": influence,
        f"the same by {RESAMPLES} draws": redrawn,
        f"MMD, {dimensions} features, by {RESAMPLES} draws": discrepancy,
    }


def covered(measure: Measure, count: int, dimensions: int, sets: int) -> tuple[float, float]:
    """Share of the sets whose interval holds the mean number, and the mean standard error over the true one."""
    random, others = torch.Generator().manual_seed(count), torch.Generator().manual_seed(1)
    rows = []
    for _ in range(sets):
        images = 1.2 * torch.randn(count, dimensions, generator=random, dtype=torch.float64) + 0.3
        rows.append(measure(images, others))
    numbers, errors = torch.tensor(rows, dtype=torch.float64).T
    held = (numbers - numbers.mean()).abs() <= student_quantile(0.95, count) * errors
    return held.double().mean().item(), (errors.mean() / numbers.std()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100, help="sets of images for each number")
    sets = parser.parse_args().sets
    lines = [
        f"# Coverage of intervals of a whole set's number\n\nPer cent of {sets:,} sets whose 95 % interval holds the "
        "mean over sets; in parentheses the mean standard error over the true one. Chance alone moves a share by "
        f"{196 * math.sqrt(0.0475 / sets):.1f}.\n",
        f"| number of a set | {' | '.join(f'{count} images' for count in COUNTS)} |",
        "|---" * (len(COUNTS) + 1) + "|",
    ]
    for dimensions in DIMENSIONS:
        for name, measure in set_numbers(dimensions).items():
            cells = [covered(measure, count, dimensions, sets) for count in COUNTS]
            lines.append(f"| {name} | {' | '.join(f'{100 * held:.1f} ({size:.2f})' for held, size in cells)} |")
            print(lines[-1], flush=True)
    write_text(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
