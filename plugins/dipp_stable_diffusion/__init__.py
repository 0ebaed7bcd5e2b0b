"""Stable Diffusion 1, 2 and XL pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.published import SETTINGS, published_generator, published_reference

READOUT = 0.625
"""Timestep 624 of 999, where SiD-LSG (Zhou et al. 2024) reads out its one-step Stable Diffusion."""

DMD2_READOUT = 399 / 999
"""Timestep 399 of 999, where DMD2's one-step Stable Diffusion XL is read out (Yin et al. 2024)."""

BASES = {
    "sd15": "sd15",
    "sd15-onestep": "sd15",
    "sdxl": "sdxl",
    "sdxl-dmd2": "sdxl",
    "sd-turbo": "sd-turbo",
}
COMMON: dict[str, Any] = {
    **SETTINGS,
    "reference_guidance": 7.5,
    "reference_steps": 30,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
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
        partial(published_reference, "sd15"),
        summary="Stable Diffusion 1.5 at 512x512, multi-step",
        defaults={**COMMON, "reference": "sd15", "readout": READOUT},
    )
    register(
        "sdxl",
        partial(published_reference, "sdxl"),
        summary="Stable Diffusion XL at 1024x1024, multi-step",
        defaults={**COMMON, "reference": "sdxl", "readout": DMD2_READOUT},
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "sd15-onestep",
        partial(published_generator, "sd15", readout=READOUT),
        summary="Stable Diffusion 1.5's network read out once, to be trained",
        defaults={**COMMON, "reference": "sd15", "readout": READOUT},
    )
    register(
        "sd-turbo",
        partial(published_generator, "sd-turbo"),
        summary="SD-Turbo, one step at 512x512; name a reference of its latent space to align it",
        defaults=COMMON,
    )
    register(
        "sdxl-dmd2",
        "dipp_stable_diffusion.dmd2:load_sdxl_dmd2",
        summary="DMD2's one-step Stable Diffusion XL",
        defaults={**COMMON, "reference": "sdxl", "readout": DMD2_READOUT},
    )


def load_blueprint(name: str) -> Any:
    """The blueprint of a published pipeline."""
    from .blueprints import blueprint

    return blueprint(name)
