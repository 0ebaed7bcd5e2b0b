"""Stable Diffusion 3 and 3.5 pipelines: a record for each published one, and what the plugin registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import (
    SETTINGS,
    PublishedGenerator,
    PublishedPipeline,
    PublishedReference,
    register_blueprints,
    register_models,
)
from dipp_toolkit.utils import licences

CONFIGS = Path(__file__).parent / "published"
SD35_MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
SD35_LARGE_TURBO = "stabilityai/stable-diffusion-3.5-large-turbo"

COMMON: dict[str, Any] = {**SETTINGS, "reference_steps": 28}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "sd3",
        "Stable Diffusion 3 medium at 1024x1024, flow matching, multi-step",
        "stabilityai/stable-diffusion-3-medium-diffusers", CONFIGS / "sd3", licences.SD3, COMMON,
    ),
    PublishedReference(
        "sd35-medium",
        "Stable Diffusion 3.5 medium at 1024x1024, flow matching, multi-step",
        SD35_MEDIUM, CONFIGS / "sd35-medium", licences.SD35_MEDIUM, COMMON,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "sd35-medium",
        "Stable Diffusion 3.5 medium's network read out once, to be trained",
        SD35_MEDIUM, CONFIGS / "sd35-medium", licences.SD35_MEDIUM, COMMON,
        reference="sd35-medium",
    ),
    PublishedGenerator(
        "sd35-large-turbo",
        "Stable Diffusion 3.5 large turbo, made for 4 steps at 1024x1024, 8 B parameters",
        SD35_LARGE_TURBO, CONFIGS / "sd35-large-turbo", licences.SD35_LARGE_TURBO, COMMON,
        reference="sd35-medium", step_noise="none", times="stock",
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


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
