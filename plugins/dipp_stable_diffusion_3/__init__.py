"""Stable Diffusion 3 pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import register_blueprints, register_models

from .models import GENERATORS, MODELS, REFERENCES


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "StableDiffusion3Pipeline",
        "dipp_stable_diffusion_3.family:StableDiffusion3Family",
        summary="Stable Diffusion 3: a flow-matching MMDiT with two CLIP encoders and T5",
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
