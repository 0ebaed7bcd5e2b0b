"""Stable Diffusion 1, 2 and XL pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl, licences
from dipp_toolkit.hooks import Register
from dipp_toolkit.licences import Origin
from dipp_toolkit.published import register_blueprints, register_models

from .models import ALIGNED, DMD2, DMD2_READOUT, GENERATORS, MODELS, REFERENCES


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
    register_blueprints(register, MODELS)
    sdxl = next(model for model in REFERENCES if model.name == "sdxl")
    register("sdxl-dmd2", sdxl.blueprint, summary="sdxl-dmd2 without weights")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register_models(register, REFERENCES)


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register_models(register, GENERATORS)
    register(
        "sdxl-dmd2",
        "dipp_stable_diffusion.dmd2:load_sdxl_dmd2",
        summary="DMD2's one-step Stable Diffusion XL at 1024x1024",
        defaults={**ALIGNED, "reference": "sdxl", "readout": DMD2_READOUT},
        origin=Origin(DMD2, licences.DMD2),
    )
