"""Rows of a leaderboard for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipp_toolkit.events import Warned
from dipp_toolkit.experiments.bench.rows import SKEW_CORRECTED, EvaluationProtocol, Figure, Picture, Row, Subject
from dipp_toolkit.experiments.bench.statistics import mean_figure

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)
COUNT = 40


def scores(mean: float, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """One score a prompt, the same prompts hard for everybody."""
    hard = torch.randn(COUNT, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    own = torch.randn(COUNT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + spread * hard + 0.1 * own


def fake_row(
    label: str,
    liked: float,
    *,
    seed: int = 0,
    prompts: str = "set",
    distance: float = 10.0,
    warned: Sequence[str] = (),
) -> Row:
    """A measured row with a reward, a judge and a distance of the whole set."""
    categories = ["a", "b"] * (COUNT // 2)
    return Row(
        subject=Subject(label=label, name=label, evaluations=1, fingerprint=f"{seed:064x}"),
        protocol=EvaluationProtocol(
            prompts=prompts,
            digest=("1" if prompts == "set" else "2") * 64,
            count=COUNT,
            seeds=(1, 2),
            size=(64, 64),
            versions={"liked": "v1"},
        ),
        figures={
            "liked": mean_figure(scores(liked, seed), categories, "reward", "higher"),
            "judged": mean_figure(scores(-liked, seed + 1), categories, "judge", "higher"),
            "distance": Figure(mean=distance, low=distance - 1, high=distance + 1, role="metric", better="lower"),
        },
        warnings=tuple(Warned(name=item, text=f"It is {item}.") for item in warned),
        pictures=(Picture(prompt="a <fox>", seed=1, data=PIXEL), Picture(prompt="a cake", seed=1, data=PIXEL)),
        command=f"dipp bench --generators {label}",
        environment={"torch": "2"},
        intervals=SKEW_CORRECTED,
    )
