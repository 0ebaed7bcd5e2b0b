"""Stable Diffusion 3 pipelines."""

from __future__ import annotations

from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


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
        load_sd3,
        summary="Stable Diffusion 3 medium at 1024x1024, flow matching, multi-step",
        defaults={
            "reference": "sd3",
            "guidance": 4.5,
            "reference_guidance": 4.5,
            "reference_steps": 28,
            "mode": "lora",
            "precision": "bf16",
            "batch_size": 4,
            "eval_count": 16,
        },
    )


def load_sd3(**options: Any) -> Any:
    """Stable Diffusion 3 medium as the reference."""
    from dipp_toolkit.published import published_reference

    return published_reference("sd3", **options)
