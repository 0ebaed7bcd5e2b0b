r"""A sibling's anchor: the `reward_scale` at which its rewards pull a given number of times as hard as the rest.

With $G(s)$ the objective's gradient on samples of the generator that all start from, at `reward_scale` s, the pull is
$\mathrm{rms}(G(s) - G(0)) / \mathrm{rms}(G(0))$, on the same samples, times and noises. It is what `reward_scale=auto`
measures, for objectives too that have the rewards inside their own formula, where that has nothing to measure; and
unlike that it leaves the rewards' weights as they are, so that every sibling has one and the same reward.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.fair_study.objectives import SHARED, SIBLINGS
from benchmarks.fair_study.search import PULL
from benchmarks.fair_study.worlds import World
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.build import build_terms
from dipp_toolkit.objective.evaluate import evaluate_objective
from dipp_toolkit.training.setup.assembly import Assembled, assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.reproducibility import seed_everything

BATCHES = 8
SEED = 100
CLOSE = 0.01
"""Relative distance from the pull that was asked for at which a scale is taken."""
MOST_TRIES = 6


def gradient(parts: Assembled, config: TrainConfig, scale: float, batch: int) -> Tensor:
    """The objective's gradient on the samples of a batch at a `reward_scale`: the same draws at every scale."""
    config = config.model_copy(update={"reward_scale": scale})
    terms = build_terms(config, parts.reference, parts.assistant, parts.rewards, parts.device)
    random = torch.Generator().manual_seed(SEED + batch)
    rows = torch.randperm(len(parts.conditions), generator=random)[: config.batch_size].tolist()
    condition = parts.conditions[rows]
    noise = parts.engine.draw_noise(len(condition), random)
    with torch.no_grad():
        x0 = parts.generator.generate(noise, condition)
    return evaluate_objective(terms, Sample(x0, condition, noise, random)).grad


def scale_for(pull: float, pull_at: Callable[[float], float]) -> float:
    """The scale with this pull, to 4 digits.

    Args:
        pull: asked for.
        pull_at: measures it at a scale; in proportion to it, or nearly.

    Raises:
        ValueError: the pull does not follow the scale.
    """
    scale = 1.0
    for _ in range(MOST_TRIES):
        now = pull_at(scale)
        if abs(now / pull - 1) <= CLOSE:
            return float(f"{scale:.4g}")
        scale *= pull / now
    raise ValueError(f"No scale was found at which the rewards pull {pull:g} times as hard as the rest.")


def measured_anchor(world: World, sibling: str, folder: Path) -> float:
    """The `reward_scale` of a sibling at which its rewards pull `PULL` times as hard, at the start of a run."""
    settings: dict[str, Any] = {**SHARED, **world.settings, **SIBLINGS[sibling], "generator": world.generator}
    config = resolve(TrainConfig(**settings, reference=world.reference, reward_scale=1.0, out=folder))
    seed_everything(SEED)
    parts = assemble(config)
    without = [gradient(parts, config, 0.0, batch) for batch in range(BATCHES)]
    rest = torch.stack(without).square().mean().sqrt()

    def pull_at(scale: float) -> float:
        with_rewards = [gradient(parts, config, scale, batch) for batch in range(BATCHES)]
        return float((torch.stack(with_rewards) - torch.stack(without)).square().mean().sqrt() / rest)

    return scale_for(PULL, pull_at)
