"""Stable Diffusion 1, 2 and XL pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register

READOUT = 0.625
"""Timestep 624 of 999, where SiD-LSG (Zhou et al. 2024) reads out its one-step Stable Diffusion."""

DMD2_TIMESTEP = 399
"""Where DMD2's one-step Stable Diffusion XL is read out (Yin et al. 2024)."""

BASES = {
    "sd15": "sd15",
    "sd15-onestep": "sd15",
    "sdxl": "sdxl",
    "sdxl-dmd2": "sdxl",
    "sd-turbo": "sd-turbo",
}
COMMON: dict[str, Any] = {
    "guidance": 4.5,
    "reference_guidance": 7.5,
    "reference_steps": 30,
    "mode": "lora",
    "precision": "bf16",
    "batch_size": 4,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "eval_count": 16,
    "long_prompts": "cut",
}


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "StableDiffusionPipeline",
        "dipp_stable_diffusion.family:StableDiffusionFamily",
        summary="Stable Diffusion 1 and 2: a UNet with a CLIP text encoder",
    )
    register(
        "StableDiffusionXLPipeline",
        "dipp_stable_diffusion.family:StableDiffusionXLFamily",
        summary="Stable Diffusion XL: a UNet with two CLIP text encoders and size conditions",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    for name, base in BASES.items():
        register(name, partial(load_blueprint, base), summary=f"the published {base} without weights")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register(
        "sd15",
        partial(load_reference, "sd15"),
        summary="Stable Diffusion 1.5 at 512x512, multi-step",
        defaults={**COMMON, "reference": "sd15", "readout": READOUT},
    )
    register(
        "sdxl",
        partial(load_reference, "sdxl"),
        summary="Stable Diffusion XL at 1024x1024, multi-step",
        defaults={**COMMON, "reference": "sdxl", "readout": DMD2_TIMESTEP / 999},
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "sd15-onestep",
        partial(load_generator, "sd15", readout=READOUT),
        summary="Stable Diffusion 1.5's network read out once, to be trained",
        defaults={**COMMON, "reference": "sd15", "readout": READOUT},
    )
    register(
        "sd-turbo",
        partial(load_generator, "sd-turbo"),
        summary="SD-Turbo, one step at 512x512; name a reference of its latent space to align it",
        defaults=COMMON,
    )
    register(
        "sdxl-dmd2",
        "dipp_stable_diffusion.dmd2:load_sdxl_dmd2",
        summary="DMD2's one-step Stable Diffusion XL",
        defaults={**COMMON, "reference": "sdxl", "readout": DMD2_TIMESTEP / 999},
    )


def load_blueprint(name: str) -> Any:
    """The blueprint of a published pipeline."""
    from .blueprints import blueprint

    return blueprint(name)


def load_reference(name: str, **options: Any) -> Any:
    """The reference of a published pipeline."""
    from dipp_toolkit.published import published_reference

    return published_reference(name, **options)


def load_generator(name: str, **options: Any) -> Any:
    """A published pipeline's network as a generator."""
    from dipp_toolkit.published import published_generator

    return published_generator(name, **options)
