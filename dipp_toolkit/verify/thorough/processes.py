r"""The forward processes, each twice: as a diffusers configuration that the toolkit reads, and written here again.

A mistake in how the toolkit reads a configuration, shifts a time or rounds it to the grid is then seen, because closed
forms and networks use what is written here. All numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.predictions import Prediction
from ...diffusion.schedules import Schedule, schedule_from_config
from ..gaussian_network import Coefficients

STEPS = 1000
"""Training times of the variance preserving processes."""

CELLS = 4000
"""Cells of the time range that a continuous process is integrated over."""

LEAST = 1e-3
"""Where less than this is left of image or noise, the toolkit looks at the nearest time that has more."""


@dataclass(frozen=True)
class Grid:
    r"""An integral over time as a finite sum.

    Attributes:
        alpha: signal coefficients, `(times,)`.
        sigma: noise coefficients.
        mass: what each counts; they sum to 1.
    """

    alpha: Float[Tensor, " times"]
    sigma: Float[Tensor, " times"]
    mass: Float[Tensor, " times"]


@dataclass(frozen=True)
class Process:
    """A forward process.

    Attributes:
        name: in the rows.
        config: of a diffusers scheduler.
        prediction: of the reference's network.
        times: the run's time range.
        table: alpha squared at the training times; None for the straight line.
        shift: of the straight line.
    """

    name: str
    config: Mapping[str, Any]
    prediction: Prediction
    times: tuple[float, float] = (0.02, 0.98)
    table: Tensor | None = None
    shift: float = 1.0

    @property
    def schedule(self) -> Schedule:
        """What the toolkit makes of the configuration."""
        return schedule_from_config(self.config)

    @property
    def network(self) -> Coefficients:
        """The process as its network knows it, by the times that it is given."""
        table = self.table
        if table is None:
            return lambda time: (1 - time / STEPS, time / STEPS)
        return lambda time: (table[time.long()].sqrt(), (1 - table[time.long()]).sqrt())

    def grid(self, law: str, cells: int = CELLS) -> Grid:
        """The integral over the time range, times being distributed by a law.

        On the grid of training times it is exact: each counts as much as the times that are rounded to it.

        Args:
            law: `uniform` or `logit-normal`.
            cells: that a continuous process is integrated over.
        """
        low, high = self.times
        if self.table is None:
            edges = torch.linspace(low, high, cells + 1, dtype=torch.float64)
            middle = (edges[1:] + edges[:-1]) / 2
            sigma = self.shift * middle / (1 + (self.shift - 1) * middle)
            alpha = 1 - sigma
        else:
            edges = ((torch.arange(STEPS + 1, dtype=torch.float64) - 0.5) / (STEPS - 1)).clamp(low, high)
            usable = (self.table.sqrt() >= LEAST) & ((1 - self.table).sqrt() >= LEAST)
            places = usable.nonzero().flatten()
            nearest = torch.arange(STEPS).clamp(int(places[0]), int(places[-1]))
            alpha, sigma = self.table[nearest].sqrt(), (1 - self.table[nearest]).sqrt()
        below = LAWS[law]((edges - low) / (high - low))
        mass = below[1:] - below[:-1]
        return Grid(alpha[mass > 0], sigma[mass > 0], mass[mass > 0])


LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda place: place,
    "logit-normal": lambda place: torch.special.ndtr(torch.logit(place)),
}
"""The share of times below a place in the range, 0 to 1."""


def _table(betas: np.ndarray) -> Tensor:
    return torch.from_numpy(np.cumprod(1 - betas))


def _cosine() -> Tensor:
    """Nichol and Dhariwal 2021, eq. 17, betas at most 0.999."""

    def height(t: np.ndarray) -> np.ndarray:
        squared: np.ndarray = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return squared

    steps = np.arange(STEPS)
    return _table(np.minimum(1 - height((steps + 1) / STEPS) / height(steps / STEPS), 0.999))


def _zero_snr(table: Tensor) -> Tensor:
    """Lin et al. 2024, algorithm 1: the last alpha is 0, the first stays."""
    root = table.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()


SIGMOID = 1 / (1 + np.exp(-np.linspace(-6, 6, STEPS))) * (0.02 - 1e-4) + 1e-4
"""Betas of GeoDiff (Xu et al. 2022)."""
ROOT = np.sqrt(np.linspace(1e-6, 3e-4, STEPS))
"""Betas whose squares rise evenly: the rule `sqrt` of latent diffusion's code, with ends of our own."""
SCALED = np.linspace(0.00085**0.5, 0.012**0.5, STEPS) ** 2
"""Stable Diffusion's betas."""

_DDPM = {"_class_name": "DDPMScheduler", "num_train_timesteps": STEPS}
_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": STEPS}

PROCESSES = {
    process.name: process
    for process in (
        Process("flow", {**_FLOW, "shift": 1.0}, "velocity"),
        Process("flow-shift-3", {**_FLOW, "shift": 3.0}, "velocity", shift=3.0),
        Process("cosine", {**_DDPM, "beta_schedule": "squaredcos_cap_v2"}, "epsilon", table=_cosine()),
        Process(
            "sigmoid-betas", {**_DDPM, "beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02}, "sample",
            table=_table(SIGMOID),
        ),
        Process(
            "root-betas", {**_DDPM, "beta_schedule": "linear", "trained_betas": ROOT.tolist()}, "epsilon",
            table=_table(ROOT),
        ),
        Process(
            "zero-snr",
            {**_DDPM, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
             "rescale_betas_zero_snr": True},
            "v_prediction", (0.02, 1.0), _zero_snr(_table(SCALED)),
        ),
    )
}  # fmt: skip
"""By name; the time range of `zero-snr` reaches to its last time, at which nothing is left of the image."""
