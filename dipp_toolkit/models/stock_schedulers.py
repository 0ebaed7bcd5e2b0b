r"""The stock scheduler of a generator of several steps. It decides the times, and loads in plain diffusers.

A generator of K steps reads $\hat x_0$ off its network at $t_1 > \ldots > t_K$ and goes on from
$x_{t_{k+1}} = \alpha \hat x_0 + \sigma \epsilon$ with fresh noise: multistep consistency sampling, which diffusers'
`LCMScheduler` and `FlowMatchLCMScheduler` do. Training asks them for its times, so that it agrees with what plain
diffusers does with the exported folder. Both say in their own configuration how many steps a generator was trained for:

- `LCMScheduler` by `original_inference_steps`: of N training times these are $k \lfloor N/K \rfloor - 1$, such as 999,
  749, 499 and 249, which are DMD2's. A read-out below 1 cuts the schedule there, as it does for one step. Its
  consistency boundary $c_{skip} = 0.25 / ((s t)^2 + 0.25)$ is at most 2.5e-9 with $s = 10^4$ and $t \ge 1$.
- `FlowMatchLCMScheduler` by `shift_terminal` = 1/K: its noise levels are 1, 1 - 1/K, ..., 1/K, unshifted. Stock
  pipelines ask it for their steps in two ways; at a shift of 1 both give these levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..diffusion.schedules import FlowMatching, VariancePreserving, schedule_from_config
from ..errors import RequestError
from ..utils.paths import is_there, user_path
from .files.folders import read_scheduler_config
from .input_scale import InputScale
from .one_step_scheduler import check_flow, cut_schedule, one_step_scheduler

MOST_STEPS = 8

BOUNDARY_SCALING = 1e4
"""`LCMScheduler`'s timestep_scaling: how sharply its output turns from $x_t$ at time 0 to the prediction after it."""


DDPM_DEFAULTS = {"beta_start": 1e-4, "beta_end": 0.02}
"""What a configuration means that does not say it; `LCMScheduler` would take other numbers."""


def few_step_scheduler(config: Mapping[str, Any], readout: float, steps: int, input_scale: InputScale = "unit") -> Any:
    """A stock scheduler that takes `steps` steps, from pure noise at the time `readout`.

    Args:
        config: the reference's scheduler configuration.
        readout: time in [0, 1], rounded to the schedule's grid, at which pure noise is read.
        steps: from 2 to 8.
        input_scale: what the first step's network is given; `LCMScheduler` gives it z.

    Raises:
        RequestError: no stock scheduler can express it, or the schedule has too few times below the read-out.
    """
    schedule = schedule_from_config(config)
    if isinstance(schedule, FlowMatching):
        return _flow_scheduler(config, readout, steps)
    assert isinstance(schedule, VariancePreserving)
    if input_scale == "sigma" and schedule.sigma(torch.tensor([readout])).item() != 1:
        raise RequestError(
            f"A generator of {steps} steps starts from z itself, which is what the stock LCMScheduler gives its "
            "network, and this one is given sigma z (input_scale=sigma). Set input_scale=unit, or generator_steps=1."
        )
    from diffusers import LCMScheduler

    settings = DDPM_DEFAULTS | cut_schedule(config, schedule, readout)
    scheduler = LCMScheduler(
        **settings,
        clip_sample=False,
        set_alpha_to_one=True,
        original_inference_steps=steps,
        timestep_scaling=BOUNDARY_SCALING,
        steps_offset=config.get(
            "steps_offset", 0
        ),  # it has no effect here, but Stable Diffusion warns where it is not 1
    )
    times = len(scheduler.alphas_cumprod)
    if times < 2 * steps:  # the last step would be at time 0, where there is nothing left to denoise
        raise RequestError(
            f"A readout of {readout:.3g} leaves {times} training times, too few for {steps} steps. Set a larger "
            "readout, or fewer generator_steps."
        )
    return scheduler


def _flow_scheduler(config: Mapping[str, Any], readout: float, steps: int) -> Any:
    try:
        from diffusers import FlowMatchLCMScheduler
    except ImportError as error:
        raise RequestError(
            "The installed diffusers has no FlowMatchLCMScheduler, so a flow-matching generator of several steps could "
            "not be loaded again. Update diffusers, or set generator_steps=1."
        ) from error

    check_flow(config, readout)
    return FlowMatchLCMScheduler(
        num_train_timesteps=int(config.get("num_train_timesteps", 1000)), shift=1.0, shift_terminal=1 / steps
    )


def stock_scheduler(config: Mapping[str, Any], readout: float, steps: int, input_scale: InputScale = "unit") -> Any:
    """The stock scheduler of a generator of one step or several.

    Raises:
        RequestError: there is none; see `one_step_scheduler` and `few_step_scheduler`.
    """
    if steps == 1:
        return one_step_scheduler(config, readout, input_scale)
    return few_step_scheduler(config, readout, steps, input_scale)


def step_times(
    config: Mapping[str, Any],
    readout: float,
    steps: int,
    latent_shape: tuple[int, ...],
    input_scale: InputScale = "unit",
) -> tuple[float, ...]:
    """The times in [0, 1] at which the network is read, the first one first, as the stock scheduler has them.

    Args:
        config: the scheduler configuration whose schedule the times belong to.
        readout: the only time, where there is one step.
        steps: from 1 to 8.
        latent_shape: of one latent; flow models' schedules may depend on it.
        input_scale: what the first step's network is given.

    Raises:
        RequestError: no stock scheduler can express it.
    """
    if steps == 1:
        return (readout,)
    scheduler = few_step_scheduler(config, readout, steps, input_scale)
    scheduler.set_timesteps(steps)
    schedule = schedule_from_config(config, latent_shape)
    if isinstance(schedule, FlowMatching):
        levels, shift = scheduler.sigmas[:-1].tolist(), schedule.shift
        return tuple(level / (shift - (shift - 1) * level) for level in levels)
    assert isinstance(schedule, VariancePreserving)
    return tuple(time / (len(schedule.alphas_cumprod) - 1) for time in scheduler.timesteps.tolist())


def recorded_steps(config: Mapping[str, Any]) -> int:
    """How many steps the generator of a folder with this scheduler configuration was trained for; 1 where none says.

    Raises:
        RequestError: it says something that is no number.
    """
    found = 1
    try:
        if config.get("_class_name") == "LCMScheduler":
            found = int(config.get("original_inference_steps", 50))
        elif config.get("_class_name") == "FlowMatchLCMScheduler" and config.get("shift_terminal"):
            found = round(1 / float(config["shift_terminal"]))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RequestError(f"The scheduler's configuration says no number of steps: {error}.") from error
    return found if 1 <= found <= MOST_STEPS else 1


def saved_steps(name: str) -> int | None:
    """What `recorded_steps` says of a pipeline or run folder on this machine; None where there is none of this name.

    Raises:
        RequestError: the scheduler's configuration is no JSON.
    """
    plain = name.removeprefix("diffusers:")
    if not is_there(plain):
        return None
    path = user_path(plain)
    for folder in (path, path / "final"):
        if (folder / "scheduler" / "scheduler_config.json").is_file():
            return recorded_steps(read_scheduler_config(folder))
    return None
