r"""The generator timestep: at which time a one-step generator's network is read, and what it is given there.

A stock pipeline's scheduler records both, the time $t^*$ by its spacing and the input by its class. The input is $z$ or
$\sigma(t^*) z$. Published generators are of both kinds, and each is right for the networks that were trained so:

- `"unit"`, $x_{t^*} = z$: DMD2, DI++ and its relatives on Stable Diffusion XL, PixArt-DMD, and whatever is sampled by
  `LCMScheduler`. diffusers' DDPM-style schedulers start from $z$ as well.
- `"sigma"`, $x_{t^*} = \sigma(t^*) z$, which is $x_{t^*}$ noised from $x_0 = 0$: SD-Turbo, SDXL-Turbo, SiD-LSG, SIM.
  diffusers' Euler schedulers give it: they start from $\sigma_{max} z$ with $\sigma_{max} = \sigma / \alpha$, and the
  network from that times $1 / \sqrt{\sigma_{max}^2 + 1} = \alpha$.

Fed otherwise, a network that predicts noise makes another image by $(1 - \sigma) / \alpha$ times $z$: 0.034 for
SD-Turbo, 0.19 for SiD-LSG. With flow matching $\sigma(1) = 1$, and there is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from ..diffusion.schedules import VariancePreserving, schedule_from_config
from ..errors import RequestError

InputScale = Literal["unit", "sigma"]

SIGMA_STARTS = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
)
"""Stock schedulers that start from (sigma / alpha) z, and give the network alpha times that."""


def recorded_input_scale(config: Mapping[str, Any]) -> InputScale:
    """The input's scale of a generator in a folder with this scheduler configuration.

    Euler and its kin with trailing spacing mean `"sigma"`: their single step starts at the last training time, so it is
    how the pipeline makes its image in one step (SD-Turbo, SDXL-Turbo, exports of such generators). With any other
    spacing a single step would start elsewhere (at timestep 1 with leading spacing), so the scheduler is there for many
    steps, as Stable Diffusion XL's is, and does not describe a generator that starts from that network: `"unit"`. All
    other schedulers start from z.
    """
    stock = config.get("_class_name") in SIGMA_STARTS
    return "sigma" if stock and config.get("timestep_spacing") == "trailing" else "unit"


def stock_readout(config: dict[str, Any]) -> float:
    """The time in [0, 1] at which a pipeline with this scheduler is read out.

    One-step pipelines record it by trailing spacing, where the single step starts. A multi-step pipeline's network,
    taken as a generator, is read out at the last training time, and so is a generator of several steps, whose schedule
    ends at its first step.
    """
    from diffusers import DDIMScheduler

    schedule = schedule_from_config(config)
    if not isinstance(schedule, VariancePreserving) or config.get("timestep_spacing") != "trailing":
        return 1.0
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(1)
    return float(scheduler.timesteps[0]) / (len(schedule.alphas_cumprod) - 1)


CUT = 0.02
"""Of a schedule's last alpha^2: a diffusion's ends at nearly pure noise, 0.0047 for Stable Diffusion, below 1e-4 for
others. One that keeps more is no diffusion's but a generator's, cut where it is read out (`cut_schedule`)."""


def check_readout(config: dict[str, Any], readout: float, folder: object) -> None:
    """Refuse a time that a user gives for a generator whose schedule already ends where it is read out.

    Raises:
        RequestError: the time would be a share of what is left of the schedule, another timestep than was meant.
    """
    schedule = schedule_from_config(config)
    if readout == 1.0 or not isinstance(schedule, VariancePreserving):
        return
    if schedule.alpha(torch.ones(1)).item() ** 2 <= CUT:
        return
    last = len(schedule.alphas_cumprod) - 1
    raise RequestError(
        f"The generator in {folder} was saved with a schedule that ends where it is read out, at timestep {last}; "
        f"readout={readout:.3g} of that would be timestep {round(readout * last)}. Leave readout out."
    )
