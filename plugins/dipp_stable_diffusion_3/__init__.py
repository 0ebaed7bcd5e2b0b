"""Stable Diffusion 3 pipelines."""

from __future__ import annotations

from functools import partial

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.published import SETTINGS, published_reference


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "StableDiffusion3Pipeline",
        "dipp_stable_diffusion_3.family:StableDiffusion3Family",
        summary="Stable Diffusion 3: a flow-matching MMDiT with two CLIP encoders and T5",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("sd3", "dipp_stable_diffusion_3.blueprints:sd3", summary="Stable Diffusion 3 medium without weights")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register(
        "sd3",
        partial(published_reference, "sd3"),
        summary="Stable Diffusion 3 medium at 1024x1024, flow matching, multi-step",
        defaults={**SETTINGS, "reference": "sd3", "reference_steps": 28},
    )
