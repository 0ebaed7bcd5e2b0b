"""Which scheduler classes of diffusers describe a noise schedule that the toolkit can train with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import RequestError

VARIANCE_PRESERVING = frozenset(
    {
        "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler",
        "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler",
        "LCMScheduler", "TCDScheduler",
    }
)  # fmt: skip
"""Of a `beta_schedule`; those that know `use_flow_sigmas` may be flow matching instead."""

FLOW_MATCHING = frozenset(
    {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
)

TRIGFLOW = frozenset({"SCMScheduler"})
"""Of continuous-time consistency models, whose network predicts TrigFlow's velocity."""

READABLE = VARIANCE_PRESERVING | FLOW_MATCHING | TRIGFLOW

EDM = "its network is preconditioned as in EDM (sigma_data, times of log sigma / 4), which no term here can read"
REFUSED = {
    "EDMEulerScheduler": EDM,
    "EDMDPMSolverMultistepScheduler": EDM,
    "DPMSolverSDEScheduler": (
        "its noise is a Brownian path of the whole batch, so that an image would depend on those beside it; "
        "DPMSolverMultistepScheduler with algorithm_type 'sde-dpmsolver++' is the same kind of sampler"
    ),
    "IPNDMScheduler": "its noise levels follow no beta_schedule",
}
"""Classes with a reason to give; others are refused because they have not been examined."""

PIPELINES_OWN = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
"""Settings that pipelines read in a scheduler's configuration, whether its class knows them or not."""


def class_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler's class makes of a configuration: its defaults, and none of the settings that it ignores.

    A configuration keeps settings of the class it was converted from, such as `rescale_betas_zero_snr` beside a
    `PNDMScheduler`, which has no such thing.

    Args:
        config: as in `scheduler_config.json`. Without a `_class_name` that the installed diffusers has, it is returned
            as it is.
    """
    import diffusers

    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if config.get("_class_name") not in READABLE or not isinstance(kind, type):
        return dict(config)
    parameters = inspect.signature(kind).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    kept = {key: value for key, value in config.items() if key in defaults or key in PIPELINES_OWN}
    return {**defaults, **kept, "_class_name": config["_class_name"]}


def check_schedule_readable(config: Mapping[str, Any]) -> None:
    """Refuse a scheduler whose noise schedule the toolkit would read wrongly.

    Args:
        config: as in `scheduler_config.json`.

    Raises:
        RequestError: its class is not one of those above, or a setting gives its network other times.
    """
    import diffusers

    name = str(config.get("_class_name", ""))
    if name in REFUSED:
        raise RequestError(f"The scheduler {name} cannot be used: {REFUSED[name]}. {another_scheduler()}")
    if name not in READABLE and hasattr(diffusers, name):
        raise RequestError(
            f"The scheduler {name} cannot be used: the toolkit does not know what its noise levels mean. "
            + another_scheduler()
        )
    for setting, reason in (
        ("timestep_type", "its network's time is log sigma / 4"),
        ("invert_sigmas", "its time runs from clean to noise"),
        ("scale_factors", "its samples grow from step to step"),
    ):
        value = config.get(setting)
        if value and value != "discrete":
            raise RequestError(
                f"The scheduler {name} with {setting}={value!r} cannot be used: {reason}. "
                f"{another_scheduler(flow=name in FLOW_MATCHING)}"
            )


def check_prediction_fits(config: Mapping[str, Any]) -> None:
    """Refuse a diffusion sampler whose network predicts a flow while its noise levels are those of its betas.

    Args:
        config: as in `scheduler_config.json`.

    Raises:
        RequestError: it says `flow_prediction` without `use_flow_sigmas`.
    """
    heeded = class_config(config)
    if heeded.get("prediction_type") != "flow_prediction" or heeded.get("use_flow_sigmas"):
        return
    advice = another_scheduler(flow=True)
    if "use_flow_sigmas" in heeded:
        advice = "Set use_flow_sigmas to true in scheduler_config.json, and flow_shift as the network was trained."
    raise RequestError(
        f"The scheduler {config.get('_class_name')} says prediction_type 'flow_prediction' and the noise levels of a "
        f"beta_schedule, which do not belong together. {advice}"
    )


def another_scheduler(flow: bool = False) -> str:
    """Advice for messages.

    Args:
        flow: whether the pipeline is one of flow matching.
    """
    stock = "FlowMatchEulerDiscreteScheduler" if flow else "DDIMScheduler or EulerDiscreteScheduler"
    return (
        f"If the network was trained with a schedule that {stock} has, save one in the pipeline's scheduler folder and "
        "name it in model_index.json."
    )
