r"""The stock scheduler whose single step is a generator's read-out.

A one-step generator gives its network pure noise as $x_{t^*}$ and reads $\hat x_0$ off the prediction. Stock schedulers
start at their last training time. So the schedule is cut there: the betas up to $t^*$ are written out in
`trained_betas`, and trailing spacing takes one step from $t^*$ to time 0, whose result is $\hat x_0$ itself. DDIM gives
the network $z$, and Euler $\sigma z$: it starts from $(\sigma / \alpha) z$, gives the network that times $\alpha$, and
its step is $(\sigma / \alpha) (z - \epsilon_\theta) = (\sigma z - \sigma \epsilon_\theta) / \alpha$. Flow
matching's Euler step from time 1 to 0 is $x_1 - u = \hat x_0$ already. No code of ours is in an exported folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ..diffusion.schedules import LEAST, FlowMatching, VariancePreserving, betas_from_config, schedule_from_config
from ..errors import RequestError
from .input_scale import InputScale

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
        return _flow_scheduler(config, readout)
    assert isinstance(schedule, VariancePreserving)
    sigma = schedule.sigma(torch.tensor([readout])).item()
    if input_scale == "unit" or sigma == 1:  # where there is no signal at all, both are the same
        return _ddim(config, schedule, readout)
    return _euler(config, schedule, readout)


def check_flow(config: Mapping[str, Any], readout: float) -> None:
    """Refuse a flow-matching generator that no stock scheduler can express.

    Raises:
        RequestError: it is not read out at time 1, or its scheduler is not the stock one.
    """
    if readout != 1.0:
        raise RequestError(
            f"A flow-matching pipeline starts at time 1, and this generator reads out at {readout:.3g}: no stock "
            "scheduler can express it. Set readout to 1."
        )
    if not any(one in str(config.get("_class_name", STOCK_FLOW[0])) for one in STOCK_FLOW):
        raise RequestError(
            f"A one-step generator of the flow scheduler {config['_class_name']} cannot be exported; "
            "FlowMatchEulerDiscreteScheduler can."
        )


def _flow_scheduler(config: Mapping[str, Any], readout: float) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    check_flow(config, readout)
    if STOCK_FLOW[1] in str(config.get("_class_name")):  # of a generator of several steps, whose times it holds
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.get("num_train_timesteps", 1000))
    known = inspect.signature(FlowMatchEulerDiscreteScheduler).parameters
    kept = {key: value for key, value in config.items() if key in known}
    # The noise levels of one step are 1 and 0; stretching them to another last level would divide by zero.
    return FlowMatchEulerDiscreteScheduler(**{**kept, "shift_terminal": None})


def _ddim(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> Any:
    from diffusers import DDIMScheduler

    settings = cut_schedule(config, schedule, readout)
    return DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")


def _euler(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> Any:
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
