r"""The stock schedulers of a generator of one step and of several: an exported folder has no code of ours in it.

One step. A one-step generator gives its network pure noise as $x_{t^*}$ and reads $\hat x_0$ off the prediction. Stock
schedulers start at their last training time. So the schedule is cut there: the betas up to $t^*$ are written out in
`trained_betas`, and trailing spacing takes one step from $t^*$ to time 0, whose result is $\hat x_0$ itself. DDIM gives
the network $z$, and Euler $\sigma z$: it starts from $(\sigma / \alpha) z$, gives the network that times $\alpha$, and
its step is $(\sigma / \alpha) (z - \epsilon_\theta) = (\sigma z - \sigma \epsilon_\theta) / \alpha$. Flow
matching's Euler step from time 1 to 0 is $x_1 - u = \hat x_0$ already.

Several steps. A generator of K steps reads $\hat x_0$ off its network at $t_1 > \ldots > t_K$ and goes on from
$x_{t_{k+1}} = \alpha \hat x_0 + \sigma \epsilon$ with fresh noise: multistep consistency sampling, which diffusers'
`LCMScheduler` and `FlowMatchLCMScheduler` do. Training takes its times from them, so that it agrees with what plain
diffusers does with the exported folder. Both record in their configuration how many steps a generator was trained for:

- `LCMScheduler` by `original_inference_steps`: of N training times these are $k \lfloor N/K \rfloor - 1$, such as 999,
  749, 499 and 249, which are DMD2's. A generator timestep below 1 cuts the schedule there, as for one step. Its
  consistency boundary $c_{skip} = 0.25 / ((s t)^2 + 0.25)$ is at most 2.5e-9 with $s = 10^4$ and $t \ge 1$.
- `FlowMatchLCMScheduler` by `shift_terminal` = 1/K: its noise levels are 1, 1 - 1/K, ..., 1/K, unshifted. Stock
  pipelines ask it for their steps in two ways; at a shift of 1 both give these levels.

TrigFlow has a scheduler of its own for one step and for several; see `trigflow_steps`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ..diffusion.schedules import (
    LEAST,
    FlowMatching,
    TrigFlow,
    VariancePreserving,
    betas_from_config,
    schedule_from_config,
)
from ..errors import RequestError
from ..utils.paths import is_there, user_path
from .files.folders import read_scheduler_config
from .readout import InputScale
from .trigflow_steps import scm_scheduler, scm_times

MOST_STEPS = 8

RECORDED_STEPS = "_generator_steps"
"""Where a scheduler's configuration holds the number of steps, where its class has no setting that says it."""

BOUNDARY_SCALING = 1e4
"""`LCMScheduler`'s timestep_scaling: how sharply its output turns from $x_t$ at time 0 to the prediction after it."""


DDPM_DEFAULTS = {"beta_start": 1e-4, "beta_end": 0.02}
"""Defaults of a configuration without them; those of `LCMScheduler` differ."""

LEAST_EULER_ALPHA = 5e-3
r"""Smallest alpha at which Euler's step is right to 1e-4: its float32 numbers of size $|z| / \alpha$ are rounded."""

STOCK_FLOW = ("FlowMatchEuler", "FlowMatchLCM")
"""Stock flow schedulers a generator may come with: a reference's, and a generator's of several steps."""


def one_step_scheduler(config: Mapping[str, Any], readout: float, input_scale: InputScale = "unit") -> Any:
    r"""A stock scheduler whose single step reads $\hat x_0$ off the network at the time `readout`.

    Args:
        config: the reference's scheduler configuration.
        readout: time in [0, 1], rounded to the schedule's grid.
        input_scale: whether the network is given z or sigma z.

    Raises:
        RequestError: the schedule is flow matching and the read-out not its last time, which no stock scheduler can
            express; or hardly any signal is left there, and noise is predicted, or Euler's step would be rounded.
    """
    schedule = schedule_from_config(config)
    if isinstance(schedule, FlowMatching):
        return _one_step_flow(config, readout)
    if isinstance(schedule, TrigFlow):
        return scm_scheduler(config, readout, 1)
    assert isinstance(schedule, VariancePreserving)
    sigma = schedule.sigma(torch.tensor([readout])).item()
    if input_scale == "unit" or sigma == 1:  # where there is no signal at all, both are the same
        return _ddim(config, schedule, readout)
    return euler_scheduler(config, schedule, readout)


def check_flow(config: Mapping[str, Any], readout: float) -> None:
    """Refuse a flow-matching generator that no stock scheduler can express.

    Whether its pipeline can drive that scheduler is `StockCall.check`'s to say.

    Raises:
        RequestError: it is not read out at time 1, or its scheduler is not the stock one.
    """
    if readout != 1.0:
        raise RequestError(
            f"A flow-matching pipeline starts at time 1, and this generator reads out at {readout:.3g}: no stock "
            "scheduler can express it. Set readout to 1."
        )
    stock = any(name in str(config.get("_class_name", STOCK_FLOW[0])) for name in STOCK_FLOW)
    if not stock and not config.get("use_flow_sigmas"):
        raise RequestError(
            f"A one-step generator of the flow scheduler {config['_class_name']} cannot be exported; "
            "FlowMatchEulerDiscreteScheduler can."
        )


def _one_step_flow(config: Mapping[str, Any], readout: float) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    check_flow(config, readout)
    if STOCK_FLOW[1] in str(config.get("_class_name")):  # of a generator of several steps, whose times it holds
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.get("num_train_timesteps", 1000))
    accepted = inspect.signature(FlowMatchEulerDiscreteScheduler).parameters
    kept = {key: value for key, value in config.items() if key in accepted}
    if config.get("use_flow_sigmas"):  # of a solver for diffusions, SANA's for one, most of whose settings mean others
        kept = {"num_train_timesteps": config.get("num_train_timesteps", 1000), "shift": config.get("flow_shift", 1.0)}
    # The noise levels of one step are 1 and 0; stretching them to another last level would divide by zero.
    return FlowMatchEulerDiscreteScheduler(**{**kept, "shift_terminal": None})


def _ddim(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> Any:
    from diffusers import DDIMScheduler

    settings = cut_schedule(config, schedule, readout)
    return DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")


def euler_scheduler(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> Any:
    r"""Euler's steps from the read-out down, of trailing spacing; its network is given $\sigma z$.

    Raises:
        RequestError: hardly any signal is left at the read-out.
    """
    from diffusers import EulerDiscreteScheduler

    settings = cut_schedule(config, schedule, readout)
    alpha = schedule.alpha(torch.tensor([readout])).item()
    if alpha < LEAST_EULER_ALPHA:
        raise RequestError(
            f"At time {readout:.3g} of this schedule alpha is {alpha:.1g}: sigma z is z to within {alpha**2 / 2:.0g}, "
            "and the stock EulerDiscreteScheduler, which gives it to the network, would lose more. Set "
            "input_scale=unit, or a smaller readout."
        )
    # The offset has no effect with trailing spacing, but Stable Diffusion warns where it is not 1.
    offset = config.get("steps_offset", 0)
    return EulerDiscreteScheduler(**settings, timestep_spacing="trailing", steps_offset=offset)


def cut_schedule(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> dict[str, Any]:
    """Settings of a stock scheduler whose last training time is the read-out: its schedule and what is predicted.

    The betas are those that the configuration means, to the bit, so the cut schedule has the same alphas.

    Args:
        config: the reference's scheduler configuration.
        schedule: what it describes.
        readout: time in [0, 1], rounded to the schedule's grid.

    Raises:
        RequestError: noise is predicted where hardly any signal is left to divide by.
    """
    prediction = config.get("prediction_type", "epsilon")
    alpha = schedule.alpha(torch.tensor([readout])).item()
    if prediction == "epsilon" and alpha < LEAST:
        raise RequestError(
            f"A network that predicts noise cannot be read out at time {readout:.3g} of this schedule: the sample is "
            f"divided by alpha = {alpha:.1g}. Set a smaller readout, or use a reference that predicts v or the sample, "
            f"or a schedule with alpha of at least {LEAST}."
        )
    last = int(schedule.grid_index(torch.tensor([readout])))
    if last == len(schedule.alphas_cumprod) - 1:
        kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        rescale = bool(config.get("rescale_betas_zero_snr", False))
        settings = {key: config[key] for key in kept if key in config}
        return settings | {"rescale_betas_zero_snr": rescale, "prediction_type": prediction}
    betas = betas_from_config(config)[: last + 1].tolist()
    return {"num_train_timesteps": last + 1, "trained_betas": betas, "prediction_type": prediction}


def few_step_scheduler(config: Mapping[str, Any], readout: float, steps: int, input_scale: InputScale = "unit") -> Any:
    """A stock scheduler that takes `steps` steps, from pure noise at the time `readout`.

    Args:
        config: the reference's scheduler configuration.
        readout: time in [0, 1], rounded to the schedule's grid, at which pure noise is read.
        steps: from 1 to 8.
        input_scale: what the first step's network is given; `LCMScheduler` gives it z.

    Raises:
        RequestError: no stock scheduler can express it, or the schedule has too few times below the read-out.
    """
    schedule = schedule_from_config(config)
    if isinstance(schedule, FlowMatching):
        return _few_step_flow(config, readout, steps)
    if isinstance(schedule, TrigFlow):
        return scm_scheduler(config, readout, steps)
    assert isinstance(schedule, VariancePreserving)
    if input_scale == "sigma" and schedule.sigma(torch.tensor([readout])).item() != 1:
        raise RequestError(
            f"A generator of {steps} steps starts from z itself, which is what the stock LCMScheduler gives its "
            "network, and this one is given sigma z (input_scale=sigma). Set input_scale=unit, or generator_steps=1. "
            "Without fresh noise between its steps (step_noise=none) it may start from sigma z."
        )
    from diffusers import LCMScheduler

    settings = DDPM_DEFAULTS | cut_schedule(config, schedule, readout)
    scheduler = LCMScheduler(
        **settings,
        clip_sample=False,
        set_alpha_to_one=True,
        original_inference_steps=steps,
        timestep_scaling=BOUNDARY_SCALING,
        steps_offset=config.get("steps_offset", 0),  # no effect here, but Stable Diffusion warns where it is not 1
    )
    times = len(scheduler.alphas_cumprod)
    if times < 2 * steps:  # the last step would be at time 0, where there is nothing left to denoise
        raise RequestError(
            f"A readout of {readout:.3g} leaves {times} training times, too few for {steps} steps. Set a larger "
            "readout, or fewer generator_steps."
        )
    return scheduler


def flow_consistency_scheduler() -> Any:
    """The class of the stock scheduler of flow matching that draws fresh noise between steps.

    Raises:
        RequestError: the installed diffusers has none.
    """
    try:
        from diffusers import FlowMatchLCMScheduler
    except ImportError as error:
        raise RequestError(
            "The installed diffusers has no FlowMatchLCMScheduler, so a flow-matching generator of several steps could "
            "not be loaded again. Update diffusers, or set step_noise=none or generator_steps=1."
        ) from error
    return FlowMatchLCMScheduler


def _few_step_flow(config: Mapping[str, Any], readout: float, steps: int) -> Any:
    kind = flow_consistency_scheduler()
    check_flow(config, readout)
    return kind(num_train_timesteps=int(config.get("num_train_timesteps", 1000)), shift=1.0, shift_terminal=1 / steps)


def stock_scheduler(config: Mapping[str, Any], readout: float, steps: int, input_scale: InputScale = "unit") -> Any:
    """The stock scheduler of a generator of one step or several.

    Raises:
        RequestError: there is no such scheduler; see `one_step_scheduler` and `few_step_scheduler`.
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
    schedule = schedule_from_config(config, latent_shape)
    if isinstance(schedule, TrigFlow):
        return scm_times(steps)
    scheduler.set_timesteps(steps)
    if isinstance(schedule, FlowMatching):
        levels, shift = scheduler.sigmas[:-1].tolist(), schedule.shift
        return tuple(level / (shift - (shift - 1) * level) for level in levels)
    assert isinstance(schedule, VariancePreserving)
    return tuple(time / (len(schedule.alphas_cumprod) - 1) for time in scheduler.timesteps.tolist())


def recorded_steps(config: Mapping[str, Any]) -> int:
    """How many steps the generator of a folder with this scheduler configuration was trained for; 1 where none says.

    Raises:
        RequestError: its value is not a number.
    """
    steps = 1
    try:
        if config.get(RECORDED_STEPS) is not None:
            steps = int(config[RECORDED_STEPS])
        elif config.get("_class_name") == "LCMScheduler":
            steps = int(config.get("original_inference_steps", 50))
        elif config.get("_class_name") == "FlowMatchLCMScheduler" and config.get("shift_terminal"):
            steps = round(1 / float(config["shift_terminal"]))
        elif config.get("_class_name") == "SCMScheduler":
            steps = int(config.get("num_train_timesteps", 1000))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RequestError(f"The scheduler's configuration has no valid number of steps: {error}.") from error
    return steps if 1 <= steps <= MOST_STEPS else 1


def saved_steps(name: str) -> int | None:
    """What `recorded_steps` says of a pipeline or run folder on this machine; None where there is none of this name.

    Raises:
        RequestError: the scheduler's configuration is not JSON.
    """
    config = saved_scheduler(name)
    return None if config is None else recorded_steps(config)


def saved_scheduler(name: str) -> dict[str, Any] | None:
    """The scheduler's configuration in a pipeline or run folder on this machine; None where there is none of this name.

    Raises:
        RequestError: it is not JSON.
    """
    plain = name.removeprefix("diffusers:")
    if not is_there(plain):
        return None
    path = user_path(plain)
    for folder in (path, path / "final"):
        if (folder / "scheduler" / "scheduler_config.json").is_file():
            return read_scheduler_config(folder)
    return None
