"""The grid: pipeline classes, scheduler classes, and the settings that occur in published configurations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import diffusers
from diffusers import SchedulerMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BETAS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": STABLE_DIFFUSION,
    "PixArtAlphaPipeline": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
}
FLOW_PIPELINES = ("StableDiffusion3Pipeline", "FluxPipeline")
PIPELINES = (*BETAS, *FLOW_PIPELINES)

LIKE_KARRAS = ("LCMScheduler", "TCDScheduler", "SASolverScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler")
"""Diffusion schedulers that published pipelines of the same classes come with besides."""

FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}

SPACINGS = tuple(
    {"timestep_spacing": spacing, "steps_offset": offset}
    for spacing in ("leading", "trailing", "linspace")
    for offset in (0, 1)
)
DIFFUSION: tuple[dict[str, Any], ...] = (
    {},
    *SPACINGS,
    {"clip_sample": True, "steps_offset": 1},
    {"clip_sample": False, "steps_offset": 1},
    {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1},
    {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"prediction_type": "sample"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
    {"final_sigmas_type": "sigma_min"},
    {"euler_at_final": True},
    {"solver_order": 3},
    {"solver_order": 1},
    {"lower_order_final": False, "solver_order": 2},
    {"solver_type": "heun"},
    {"solver_type": "bh1"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    {"variance_type": "fixed_large", "clip_sample": False},
    {"variance_type": "learned_range"},
    {"thresholding": True},
    {"interpolation_type": "log_linear"},
    {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
    {"original_inference_steps": 4},
    {"timestep_scaling": 10000.0},
    {"trained_betas": [0.001 * k for k in range(1, 101)], "num_train_timesteps": 100},
    FLOW_SIGMAS,
    {**FLOW_SIGMAS, "flow_shift": 3.0},
    {**FLOW_SIGMAS, "use_dynamic_shifting": True},
    {"prediction_type": "flow_prediction"},
)
"""A scheduler is given those that its class knows all settings of."""

LEFT_OVER = ({"rescale_betas_zero_snr": True}, {"use_flow_sigmas": True, "flow_shift": 3.0}, {"shift": 3.0})
"""Settings of another class that a converted configuration keeps; a class that does not know them ignores them."""

RESOLUTION = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
MATCHING: tuple[dict[str, Any], ...] = (
    {},
    {"shift": 3.0},
    {"shift": 1.0, "use_dynamic_shifting": False},
    RESOLUTION,
    {**RESOLUTION, "shift": 3.0},
    {**RESOLUTION, "time_shift_type": "linear"},
    {**RESOLUTION, "max_shift": 0.9, "base_image_seq_len": 4, "max_image_seq_len": 64},
    {"shift_terminal": 0.1},
    {**RESOLUTION, "shift_terminal": 0.02},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {**RESOLUTION, "use_beta_sigmas": True},
    {"stochastic_sampling": True},
    {"invert_sigmas": True},
    {"scale_factors": [0.5, 0.75, 0.9, 1.0]},
)
FLOW_SOLVERS: tuple[dict[str, Any], ...] = (
    FLOW_SIGMAS,
    {**FLOW_SIGMAS, "flow_shift": 3.0},
    {**FLOW_SIGMAS, "use_dynamic_shifting": True},
    {**FLOW_SIGMAS, "use_dynamic_shifting": True, "time_shift_type": "linear"},
    {**FLOW_SIGMAS, "shift_terminal": 0.1},
    {**FLOW_SIGMAS, "algorithm_type": "sde-dpmsolver++"},
)


@dataclass(frozen=True)
class Cell:
    """One pipeline class with one scheduler.

    Attributes:
        pipeline: the pipeline's class.
        scheduler: the scheduler's class.
        settings: of its configuration.
        steps: sampling steps.
    """

    pipeline: str
    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 4

    def __str__(self) -> str:
        return f"{self.pipeline} {self.scheduler} {self.settings} {self.steps} steps"


def allowed(pipeline: str) -> tuple[str, ...]:
    """Scheduler classes that go through all settings: those that diffusers names for the pipeline, and its kin."""
    karras = tuple(member.name for member in KarrasDiffusionSchedulers)
    return (*karras, *LIKE_KARRAS) if pipeline in BETAS else (*FLOW, *karras, *LIKE_KARRAS)


def others(pipeline: str) -> Iterator[str]:
    """The other scheduler classes of diffusers that can be built from nothing."""
    for name in sorted(set(dir(diffusers)) - set(allowed(pipeline))):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        if isinstance(kind, type) and issubclass(kind, SchedulerMixin):
            yield name


def cells(pipeline: str) -> Iterator[Cell]:
    """All cells of a pipeline class."""
    for scheduler in allowed(pipeline):
        for settings in _settings(pipeline, scheduler):
            yield Cell(pipeline, scheduler, settings)
        yield Cell(pipeline, scheduler, next(iter(_settings(pipeline, scheduler))), steps=1)
        yield Cell(pipeline, scheduler, next(iter(_settings(pipeline, scheduler))), steps=7)
    if pipeline in FLOW_PIPELINES:
        yield Cell(pipeline, FLOW[0], {"shift_terminal": 0.1}, steps=1)
    for scheduler in others(pipeline):
        yield Cell(pipeline, scheduler)


def _settings(pipeline: str, scheduler: str) -> Iterator[dict[str, Any]]:
    parameters = inspect.signature(getattr(diffusers, scheduler)).parameters
    base = {name: value for name, value in BETAS.get(pipeline, {}).items() if name in parameters}
    offered = DIFFUSION if pipeline in BETAS else MATCHING if scheduler in FLOW else ({}, *FLOW_SOLVERS)
    for settings in offered:
        if all(name in parameters for name in settings):
            yield base | settings
    for settings in LEFT_OVER:
        if not any(name in parameters for name in settings):
            yield base | settings
