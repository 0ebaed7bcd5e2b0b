r"""The stock scheduler whose single step is a generator's read-out.

A one-step generator gives its network pure noise as $x_{t^*}$ and reads $\hat x_0$ off the prediction. Stock schedulers
start at their last training time. So the schedule is cut there: DDIM with the betas up to $t^*$, written out in
`trained_betas`, and trailing spacing takes one step from $t^*$ to time 0, whose result is $\hat x_0$ itself. Flow
matching's Euler step from time 1 to 0 is $x_1 - u = \hat x_0$ already. No code of ours is in an exported folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .errors import RequestError
from .schedules import FlowMatching, VariancePreserving, schedule_from_config

LEAST_ALPHA = 1e-3
"""Smallest alpha a noise prediction may be divided by; Stable Diffusion's schedule ends at 0.07, DDPM's at 0.006."""

STOCK_FLOW = ("FlowMatchEuler", "FlowMatchLCM")
"""Stock flow schedulers a generator may come with: a reference's, and a generator's of several steps."""


def one_step_scheduler(config: Mapping[str, Any], readout: float) -> Any:
    r"""A stock scheduler whose single step reads $\hat x_0$ off the network at the time `readout`.

    Args:
        config: the reference's scheduler configuration.
        readout: time in [0, 1], rounded to the schedule's grid.

    Raises:
        RequestError: the schedule is flow matching and the read-out not its last time, which no stock scheduler can
            express; or noise is predicted where hardly any signal is left to divide by.
    """
    schedule = schedule_from_config(config)
    if isinstance(schedule, FlowMatching):
        return _flow_scheduler(config, readout)
    assert isinstance(schedule, VariancePreserving)
    return _ddim(config, schedule, readout)


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
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    if STOCK_FLOW[1] in str(config.get("_class_name")):  # of a generator of several steps, whose times it holds
        kept = {"num_train_timesteps": config.get("num_train_timesteps", 1000)}
    return FlowMatchEulerDiscreteScheduler(**kept)


def _ddim(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(**cut_schedule(config, schedule, readout), timestep_spacing="trailing")


def cut_schedule(config: Mapping[str, Any], schedule: VariancePreserving, readout: float) -> dict[str, Any]:
    """Settings of a stock scheduler whose last training time is the read-out.

    Args:
        config: the reference's scheduler configuration.
        schedule: what it describes.
        readout: time in [0, 1], rounded to the schedule's grid.

    Raises:
        RequestError: noise is predicted where hardly any signal is left to divide by.
    """
    prediction = config.get("prediction_type", "epsilon")
    alpha = schedule.alpha(torch.tensor([readout])).item()
    if prediction == "epsilon" and alpha < LEAST_ALPHA:
        raise RequestError(
            f"A network that predicts noise cannot be read out at time {readout:.3g} of this schedule: the sample is "
            f"divided by alpha = {alpha:.1g}. Set a smaller readout, or use a reference that predicts v or the sample, "
            f"or a schedule with alpha of at least {LEAST_ALPHA}."
        )
    common: dict[str, Any] = {"prediction_type": prediction, "clip_sample": False, "set_alpha_to_one": True}
    last = int(schedule.grid_index(torch.tensor([readout])))
    if last == len(schedule.alphas_cumprod) - 1:
        kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        rescale = bool(config.get("rescale_betas_zero_snr", False))
        return {key: config[key] for key in kept if key in config} | {"rescale_betas_zero_snr": rescale} | common
    products = schedule.alphas_cumprod[: last + 1].double()
    betas = 1 - products / torch.cat([products.new_ones(1), products[:-1]])
    return {"num_train_timesteps": last + 1, "trained_betas": betas.tolist()} | common
