"""Flux pipelines: a record for each published one, and what the plugin registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import (
    LARGE_SETTINGS,
    PublishedGenerator,
    PublishedPipeline,
    PublishedReference,
    register_blueprints,
    register_models,
)
from dipp_toolkit.utils import licences

CONFIGS = Path(__file__).parent / "published"
FLUX = "black-forest-labs/FLUX.1-dev"

DISTIL: dict[str, Any] = {
    **LARGE_SETTINGS,
    "guidance": 1.0,  # FLUX.1-dev has its guidance inside
    "reference_guidance": 1.0,
    "reference_steps": 28,
}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "flux",
        "FLUX.1-dev at 1024x1024, flow matching, multi-step, 12 B parameters",
        FLUX, CONFIGS / "flux", licences.FLUX_DEV, DISTIL,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "flux-onestep",
        "FLUX.1-dev's network read out once, to be trained",
        FLUX, CONFIGS / "flux", licences.FLUX_DEV, DISTIL,
        reference="flux",
    ),
    PublishedGenerator(
        "flux-schnell",
        "FLUX.1-schnell, made for 1 to 4 steps at 1024x1024, 12 B parameters",
        "black-forest-labs/FLUX.1-schnell", CONFIGS / "flux-schnell", licences.APACHE, DISTIL,
        reference="flux", step_noise="none", times="stock",
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "FluxPipeline",
        "dipp_flux.family:FluxFamily",
        summary="Flux: a flow-matching MMDiT over packed latents",
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
