r"""The stock scheduler of TrigFlow generators, diffusers' `SCMScheduler`, and when it reads a network.

Its K steps begin at the angle $\pi/2$, rounded to 1.5708, and go down evenly: $\frac{\pi}{2} (1 - \frac{k}{K})$. The
second one of two is at 1.3, because `SanaSprintPipeline` is called so by default (Chen et al. 2025, arXiv 2503.09641).
Between steps there is fresh noise, as in `few_steps`. For any other number of steps than two `set_timesteps`, and so
the call of a pipeline, has to be told that there is no angle in between.

An exported scheduler records its steps as `num_train_timesteps`. The class has no other use for it than to refuse more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import RequestError

INTERMEDIATE = 1.3
"""The second of two angles."""


def intermediate_timesteps(steps: int) -> float | None:
    """What `set_timesteps`, or a pipeline's call, is given by this name for so many steps."""
    return INTERMEDIATE if steps == 2 else None


def scm_scheduler(config: Mapping[str, Any], readout: float, steps: int) -> Any:
    """The stock scheduler of a TrigFlow generator.

    Args:
        config: of the scheduler that it comes with.
        readout: time in [0, 1] of its first step.
        steps: how many it takes.

    Raises:
        RequestError: it is not read out at time 1.
    """
    from diffusers import SCMScheduler

    if readout != 1.0:
        raise RequestError(
            f"A TrigFlow pipeline starts at time 1, and this generator reads out at {readout:.3g}, which no "
            "configuration of the stock SCMScheduler expresses. Set readout to 1."
        )
    return SCMScheduler(num_train_timesteps=steps, sigma_data=float(config.get("sigma_data", 0.5)))


def scm_times(steps: int) -> tuple[float, ...]:
    """The times in [0, 1], shares of a quarter turn, at which it reads the network."""
    scheduler = scm_scheduler({}, 1.0, steps)
    quarter = math.pi / 2
    scheduler.set_timesteps(steps, max_timesteps=quarter, intermediate_timesteps=intermediate_timesteps(steps))
    return tuple(min(1.0, angle / quarter) for angle in scheduler.timesteps[:-1].tolist())
