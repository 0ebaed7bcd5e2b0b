"""What is diagnosed: the same prompts and noises each time, through the generator's weights as they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..distributed.shared_draws import digest_seed
from ..models.sampling import fixed_noise
from ..prompts.conditions import Conditions
from ..protocols import Generator
from ..utils.lazy_sequence import evenly_spaced
from ..utils.precision import at_least_float32

BINS = 8
"""Time bins of the divergence. More of them would leave fewer samples in each."""

ROWS = 32
"""Samples of a diagnosis, equally many in each bin."""

FIRST_SEED = 20_000
"""Added to the run's seed: the noises are those of no comparison and no monitor."""


@dataclass
class Probe:
    """Prompts spread evenly over those that are trained on, with a fixed noise each.

    Attributes:
        generator: what is trained.
        conditions: the training prompts.
        seed: the run's.
        batch: samples of a network pass, at most.
        times: middles of the time bins; sample `i` is looked at in bin `i % len(times)`.
    """

    generator: Generator
    conditions: Conditions
    seed: int
    batch: int
    times: Float[Tensor, " bins"]
    chosen: Condition = field(init=False)
    z: Float[Tensor, "rows ..."] = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = self.conditions[evenly_spaced(len(self.conditions.prompts), ROWS)]
        weights = next(parameter for parameter in self.generator.network.parameters() if parameter.requires_grad)
        self.z = fixed_noise(ROWS, self.generator.latent_shape, self.seed + FIRST_SEED).to(weights)

    def parts(self) -> Iterator[slice]:
        """Rows of one network pass after the other."""
        for start in range(0, ROWS, self.batch):
            yield slice(start, min(start + self.batch, ROWS))

    @torch.no_grad()
    def samples(self) -> Float[Tensor, "rows ..."]:
        """What the generator makes of the noises now."""
        made = [self.generator.generate(self.z[rows], self.chosen[rows]) for rows in self.parts()]
        return at_least_float32(torch.cat(made))

    @property
    def t(self) -> Float[Tensor, " rows"]:
        """The time each sample is looked at."""
        return at_least_float32(self.times[torch.arange(ROWS) % len(self.times)].to(self.z.device))

    def noise(self, step: int) -> Float[Tensor, "rows ..."]:
        """What the samples are noised with at this step: a function of seed and step alone."""
        seed = digest_seed(f"{self.seed}\0{step}".encode())
        return fixed_noise(ROWS, self.generator.latent_shape, seed).to(self.z.device)

    def by_bin(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " bins"]:
        """Means over the samples of each bin, float64 on the CPU."""
        return values.double().cpu().reshape(-1, len(self.times)).mean(0)
