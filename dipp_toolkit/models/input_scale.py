r"""What a one-step generator's network is given: $z$, or $\sigma(t^*) z$, where $t^*$ is the time of its read-out.

Published generators are of both kinds, and each is right for the networks that were trained so:

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
    steps, as Stable Diffusion XL's is, and says nothing of a generator that starts from that network: `"unit"`. All
    other schedulers start from z.
    """
    stock = config.get("_class_name") in SIGMA_STARTS
    return "sigma" if stock and config.get("timestep_spacing") == "trailing" else "unit"
