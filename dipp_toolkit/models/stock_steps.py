r"""How plain diffusers takes the steps of a generator: by which scheduler, at which times, told by which arguments.

A generator reads its network at its scheduler's own times, so that training agrees with what the stock pipeline of the
exported folder does. With fresh noise at even times (`stock_schedulers`) that is all there is. Otherwise:

| noise | schedule | scheduler | its step |
|---|---|---|---|
| `fresh` | variance preserving | `LCMScheduler` | $\alpha' \hat x_0 + \sigma' \epsilon$ |
| `fresh` | flow matching | `FlowMatchLCMScheduler` | the same |
| `none` | variance preserving, given z | `DPMSolverMultistepScheduler` of order 1 | DDIM's |
| `none` | variance preserving, given $\sigma z$ | `EulerDiscreteScheduler` | DDIM's, in $x / \alpha$ |
| `none` | flow matching | `FlowMatchEulerDiscreteScheduler` | Euler's |

DPM-Solver's first order is DDIM (Lu et al. 2022, arXiv 2206.00927, section 4.1). diffusers' `DDIMScheduler` is not
used: it goes from a time to the one $\lfloor N/K \rfloor$ below, which is not its next one where K does not divide the
N times.

Times are `even` ones, of trailing spacing where the steps are deterministic: $N k / K - 1$, rounded. Or they are those
that the generator's own scheduler lays as its stock pipeline asks it, shift by resolution included. A flow scheduler of
Euler's steps is exported as it is then, and so is the `LCMScheduler` of a latent consistency model: a plain call of the
folder takes their steps. All other times are arguments of the pipeline's call, `timesteps` or `sigmas`.

What a generator does is recorded in the configuration of the exported scheduler, under names that begin with an
underscore: diffusers passes over those.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..diffusion.schedules import FlowMatching, TrigFlow, VariancePreserving, schedule_from_config
from ..errors import RequestError, first_line
from ..utils.json_files import read_json
from ..utils.step_settings import NOISE, TIMES, USUAL, Stepping, recorded_stepping
from .files.folders import quiet_loading
from .files.safety import stock_pipeline
from .readout import InputScale
from .stock_call import StockCall
from .stock_schedulers import (
    BOUNDARY_SCALING,
    DDPM_DEFAULTS,
    RECORDED_STEPS,
    check_flow,
    cut_schedule,
    euler_scheduler,
    few_step_scheduler,
    flow_consistency_scheduler,
    recorded_steps,
    saved_scheduler,
    step_times,
    stock_scheduler,
)

NEARLY_PURE = 1e-3
"""How much below 1 the first noise level may be that a scheduler lays; pure noise is given to it as it is."""


@dataclass(frozen=True)
class StockSteps:
    """A generator's steps in plain diffusers.

    Attributes:
        scheduler: of the exported folder.
        times: at which the network is read, in [0, 1] of the generator's schedule, the first one first.
        arguments: of the pipeline's call beside the number of steps.
    """

    scheduler: Any
    times: tuple[float, ...]
    arguments: dict[str, list[float]] = field(default_factory=dict)


def stock_steps(
    config: Mapping[str, Any],
    readout: float,
    steps: int,
    latent_shape: tuple[int, ...],
    input_scale: InputScale = "unit",
    stepping: Stepping = USUAL,
    call: StockCall | None = None,
) -> StockSteps:
    """How plain diffusers takes a generator's steps.

    Args:
        config: of the scheduler that the generator comes with, as far as its pipeline heeds it.
        readout: time in [0, 1] at which pure noise is read; where the times are other than even ones, they say it.
        steps: from 1 to 8.
        latent_shape: of one latent, on which a shift may depend.
        input_scale: what the first step's network is given.
        stepping: how the steps are taken; of one step there is but one way.
        call: what the pipeline does with its scheduler, where that lays the times.

    Raises:
        RequestError: no stock scheduler can express it; the message says what to do.
    """
    if steps == 1 or stepping == USUAL:
        alone = call is not None and call.consistency
        make = few_step_scheduler if alone else stock_scheduler
        scheduler = make(config, readout, steps, input_scale)
        return StockSteps(scheduler, step_times(config, readout, steps, latent_shape, input_scale))
    listed = stepping.listed
    if listed is not None and len(listed) != steps:
        raise RequestError(
            f"generator_times has {len(listed)} times, and the generator takes {steps} steps. Give one time for each, "
            "the noisiest first, or set generator_times=stock or even."
        )
    schedule = schedule_from_config(config, latent_shape)
    if isinstance(schedule, TrigFlow):
        return _circle(config, readout, steps, latent_shape, stepping)
    laid = _laid(config, steps, latent_shape, call or StockCall()) if stepping.times == "stock" else None
    if isinstance(schedule, FlowMatching):
        check_flow(config, readout)
        made = _flow(config, schedule, steps, stepping, laid)
    else:
        assert isinstance(schedule, VariancePreserving)
        made = _variance_preserving(config, schedule, readout, steps, input_scale, stepping, laid)
    times = "stock" if made.scheduler is laid else next(iter(made.arguments.values()), "even")
    made.scheduler.register_to_config(**{RECORDED_STEPS: steps, NOISE: stepping.noise, TIMES: times})
    return made


def recorded_arguments(config: Mapping[str, Any]) -> dict[str, list[float]]:
    """The times that a stock pipeline's call has to be given, from the configuration of an exported scheduler.

    Raises:
        RequestError: it records something else than times.
    """
    listed = recorded_stepping(config).listed
    return {} if listed is None else _arguments("FlowMatch" in str(config.get("_class_name")), listed)


def saved_stepping(name: str) -> dict[str, Any]:
    """What a pipeline or run folder on this machine records of its generator's steps, by the names of the settings; of
    several steps that are taken as usual, and where there is no folder of this name, their number alone.

    Raises:
        RequestError: the scheduler's configuration is not JSON, or records something else.
    """
    config = saved_scheduler(name)
    if config is None:
        return {"generator_steps": None}
    steps, stepping = recorded_steps(config), recorded_stepping(config)
    if steps == 1 or stepping == USUAL:
        return {"generator_steps": steps}
    return {"generator_steps": steps, "step_noise": stepping.noise, "generator_times": stepping.times}


def check_call_takes(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Refuse times that a folder's stock pipeline cannot be told.

    Args:
        folder: the pipeline's.
        arguments: of its call, by name.

    Raises:
        RequestError: its class has no such argument.
    """
    pipeline = stock_pipeline(read_json(folder / "model_index.json"))
    if pipeline is None:
        return
    for name in arguments.keys() - inspect.signature(pipeline.__call__).parameters.keys():
        raise RequestError(
            f"A {pipeline.__name__} cannot be told its {name}, so that it would not take the steps of this generator. "
            "Set generator_times=even."
        )


def _arguments(flow: bool, times: tuple[float, ...]) -> dict[str, list[float]]:
    return {"sigmas": list(times)} if flow else {"timesteps": [int(time) for time in times]}


def _circle(
    config: Mapping[str, Any], readout: float, steps: int, latent_shape: tuple[int, ...], stepping: Stepping
) -> StockSteps:
    """TrigFlow's steps, of which its scheduler knows one kind."""
    if stepping.noise == "none" or stepping.listed is not None:
        raise RequestError(
            "The stock SCMScheduler of a TrigFlow generator draws fresh noise between its steps, at times of its own. "
            "Set step_noise=fresh, and leave generator_times out."
        )
    return stock_steps(config, readout, steps, latent_shape)


def _laid(config: Mapping[str, Any], steps: int, latent_shape: tuple[int, ...], call: StockCall) -> Any:
    """The generator's own scheduler, its times set as its stock pipeline sets them."""
    import diffusers

    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if kind is None:
        raise RequestError(
            f"The installed diffusers has no scheduler {config.get('_class_name')!r} whose times generator_times=stock "
            "could take. Give the times one by one, or set generator_times=even."
        )
    try:
        with quiet_loading():
            scheduler = kind.from_config(dict(config))
    except Exception as error:  # whatever a class makes of a configuration
        raise RequestError(f"The scheduler {kind.__name__} cannot be made: {first_line(error)}.") from error
    scheduler = call.with_times(scheduler, steps, latent_shape)
    count = len(call.times(scheduler))
    if count != steps:
        raise RequestError(
            f"The scheduler {kind.__name__} reads the network {count} times in {steps} steps, so it lays no times for "
            f"a generator of {steps} steps. Give the times one by one, or set generator_times=even."
        )
    return scheduler


def _flow(config: Mapping[str, Any], schedule: FlowMatching, steps: int, stepping: Stepping, laid: Any) -> StockSteps:
    from diffusers import FlowMatchEulerDiscreteScheduler

    count = int(config.get("num_train_timesteps", 1000))
    if stepping.times == "even":  # then stepping.noise is none
        # Whether a pipeline asks for the levels 1, ..., 1/K or for a number of steps, the last one is stretched to 1/K.
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=count, shift=1.0, shift_terminal=1 / steps)
        scheduler.set_timesteps(steps)
        return StockSteps(scheduler, _flow_times(schedule, scheduler.sigmas[:-1].tolist()))
    levels = list(stepping.listed or ()) if laid is None else torch.as_tensor(laid.sigmas)[:-1].tolist()
    if laid is not None and 1 - NEARLY_PURE <= levels[0] < 1:
        levels[0] = 1.0
    if levels[0] != 1 or levels[-1] <= 0:
        raise RequestError(
            f"The noise levels of a flow-matching generator go from 1, which is pure noise, to above 0; got "
            f"{', '.join(f'{level:.4g}' for level in levels)}. Give others as generator_times, such as "
            f"{','.join(f'{1 - step / steps:.4g}' for step in range(steps))}."
        )
    times = _flow_times(schedule, levels)
    if isinstance(laid, FlowMatchEulerDiscreteScheduler) and stepping.noise == "none":
        laid.register_to_config(stochastic_sampling=False)
        return StockSteps(laid, times)
    fresh = stepping.noise == "fresh"
    kind: Any = flow_consistency_scheduler() if fresh else FlowMatchEulerDiscreteScheduler
    return StockSteps(kind(num_train_timesteps=count, shift=1.0), times, _arguments(True, tuple(levels)))


def _flow_times(schedule: FlowMatching, levels: list[float]) -> tuple[float, ...]:
    """The times in [0, 1] of noise levels: the inverse of the schedule's shift."""
    return tuple(level / (schedule.shift - (schedule.shift - 1) * level) for level in levels)


def _variance_preserving(
    config: Mapping[str, Any],
    schedule: VariancePreserving,
    readout: float,
    steps: int,
    input_scale: InputScale,
    stepping: Stepping,
    laid: Any,
) -> StockSteps:
    last = len(schedule.alphas_cumprod) - 1
    if stepping.times == "even":
        scheduler = _deterministic(config, schedule, readout, input_scale)
        count = len(scheduler.alphas_cumprod)
        if count < 2 * steps:
            raise RequestError(
                f"A readout of {readout:.3g} leaves {count} training times, too few for {steps} steps. Set a larger "
                "readout, or fewer generator_steps."
            )
        scheduler.set_timesteps(steps)
        return StockSteps(scheduler, tuple(time / last for time in scheduler.timesteps.tolist()))
    numbers = stepping.listed or tuple(float(time) for time in laid.timesteps)
    if any(time != int(time) for time in numbers) or not 1 <= numbers[-1] < numbers[0] <= last:
        raise RequestError(
            f"The timesteps of this generator are whole numbers from {last} to 1, decreasing; "
            f"{'its scheduler lays' if laid is not None else 'got'} {', '.join(f'{time:g}' for time in numbers)}. Give "
            "others as generator_times, or set generator_times=even."
        )
    times = tuple(time / last for time in numbers)
    if type(laid).__name__ == "LCMScheduler" and stepping.noise == "fresh":
        return StockSteps(laid, times)
    if stepping.noise == "none":
        scheduler = _deterministic(config, schedule, times[0], input_scale)
    else:
        scheduler = _consistency(config, schedule, times[0], input_scale)
    return StockSteps(scheduler, times, _arguments(False, numbers))


def _deterministic(
    config: Mapping[str, Any], schedule: VariancePreserving, first: float, input_scale: InputScale
) -> Any:
    """DDIM's steps from the time `first` down, of trailing spacing."""
    from diffusers import DPMSolverMultistepScheduler

    if input_scale == "sigma" and schedule.sigma(torch.tensor([first])).item() != 1:
        return euler_scheduler(config, schedule, first)
    return DPMSolverMultistepScheduler(
        **{**DDPM_DEFAULTS, **cut_schedule(config, schedule, first)},
        solver_order=1,
        timestep_spacing="trailing",
        steps_offset=config.get("steps_offset", 0),  # no effect here, but Stable Diffusion warns where it is not 1
    )


def _consistency(config: Mapping[str, Any], schedule: VariancePreserving, first: float, input_scale: InputScale) -> Any:
    """Consistency steps from the time `first` down, at times that it is told."""
    from diffusers import LCMScheduler

    if input_scale == "sigma" and schedule.sigma(torch.tensor([first])).item() != 1:
        raise RequestError(
            "With fresh noise between its steps a generator starts from z itself, which is what the stock LCMScheduler "
            "gives its network, and this one is given sigma z (input_scale=sigma). Set input_scale=unit, or "
            "step_noise=none."
        )
    settings = {**DDPM_DEFAULTS, **cut_schedule(config, schedule, first)}
    return LCMScheduler(
        **settings,
        clip_sample=False,
        set_alpha_to_one=True,
        original_inference_steps=settings.get("num_train_timesteps", 1000),  # every time is one that it may be told
        timestep_scaling=BOUNDARY_SCALING,
        steps_offset=config.get("steps_offset", 0),
    )
