"""Stable Diffusion 1, 2 and XL pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import register_blueprints, register_models

from .models import GENERATORS, MODELS, REFERENCES


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


@hookimpl
def dipp_register_references(register: Register) -> None:
    register_models(register, REFERENCES)


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register_models(register, GENERATORS)
