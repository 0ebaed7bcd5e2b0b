"""The engine on the six-dimensional world: its objective built by the code that builds a run's, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...config import make_config
from ...objective.build import build_terms
from ...objective.evaluate import WeightedTerm
from ...objective.gaussians import Gaussian, QuadraticReward
from ..gradients import followed_gradient
from ..quadrature import QuadratureEngine
from ..world import AffineGenerator, ExactAssistant
from .crossed import CrossedDraws
from .processes import Process
from .world import PROMPT, SixReference, make_reference

TIMES = 2000
"""Times of a gradient that is compared."""

PAIRS = 2**15
"""Times, each with two opposite noises, where the noises cannot be enumerated."""


@dataclass(frozen=True)
class Setting:
    """What a gradient is compared of.

    Attributes:
        process: the forward process.
        weighting: of times.
        times: the law that they are drawn from.
        term: of the objective.
        options: of the term.
        guidance: alpha_cfg.
        reward: explicit; None for none.
        reward_scale: alpha_rew.
        upright: whether the reference's axes are along the numbers.
    """

    process: Process
    weighting: str = "uniform"
    times: str = "uniform"
    term: str = "integral_kl"
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance: float = 1.0
    reward: QuadraticReward | None = None
    reward_scale: float = 0.5
    upright: bool = False

    @property
    def label(self) -> str:
        """In the rows: the term, and in brackets what is not its default."""
        return f"{self.term}[{self.process.name}, {self.weighting}, {self.times} times]"

    @property
    def reference(self) -> SixReference:
        """The world's reference under the process."""
        return make_reference(self.process, self.upright)

    @property
    def target(self) -> Gaussian:
        """The reference's law under guidance."""
        return self.reference.guided(self.guidance)

    def values(self) -> dict[str, Any]:
        """As settings of a run, the rewards' names apart."""
        return {
            "term": self.term,
            "term_options": {self.term: dict(self.options)},
            "guidance": self.guidance,
            "weighting": self.weighting,
            "time_sampling": self.times,
            "time_range": self.process.times,
            "reward_scale": self.reward_scale if self.reward is not None else 0.0,
        }


def terms_of(setting: Setting, reference: SixReference, exact: ExactAssistant) -> list[WeightedTerm]:
    """The objective: the term first, then the reward."""
    rewards = {} if setting.reward is None else {"reward": setting.reward}
    config = make_config({**setting.values(), "rewards": dict.fromkeys(rewards, 1.0)})
    return build_terms(config, reference, exact, rewards, torch.device("cpu"))


def crossed_engine(
    setting: Setting, generator: AffineGenerator, optimizer: torch.optim.Optimizer, seed: int = 0, times: int = 0
) -> QuadratureEngine:
    """An engine whose only chance is in the times, which the run's own sampling draws.

    Args:
        setting: the objective.
        generator: what is trained.
        optimizer: over its parameters.
        seed: of the times.
        times: how many a batch has, `TIMES` where 0; `PAIRS` under `dmd`, whose gradient is not affine in the noises.
    """
    reference = setting.reference
    exact = ExactAssistant(generator, reference.schedule)
    first, *rest = terms_of(setting, reference, exact)
    sampling, size = cast(Any, first.term).sampling, len(reference.given.mean)
    if setting.weighting == "dmd":
        crossed = CrossedDraws.spread(sampling, PAIRS, size)
    else:
        crossed = CrossedDraws.exact(sampling, times or TIMES, size)
    first = replace(first, term=replace(cast(Any, first.term), sampling=crossed))
    return QuadratureEngine(
        generator, optimizer, exact, [first, *rest], torch.Generator().manual_seed(seed), 0,
        max_grad_norm=math.inf, enumeration=crossed,
    )  # fmt: skip


def gradient_of(setting: Setting, generator: AffineGenerator, seed: int = 0) -> Tensor:
    """What the engine puts on `(b, A)`, `(1 + d, d)`.

    Args:
        setting: the objective.
        generator: where.
        seed: of the times.
    """
    still = torch.optim.SGD(generator.network.parameters(), lr=0.0)
    engine = crossed_engine(setting, generator, still, seed)
    assert engine.enumeration is not None
    condition = setting.reference.encode([PROMPT] * engine.enumeration.rows)
    return followed_gradient(generator, still, lambda: engine.update_generator(condition))
