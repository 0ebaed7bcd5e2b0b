"""Flux.2 pipelines: a record for each published one, and what the plugin registers.

The architectures are those of github.com/black-forest-labs/flux2 and of diffusers' own conversion; the numbers of
parameters are those of the published files, to the byte. The settings are starting points for a training.
"""

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
FLUX_2 = "black-forest-labs/FLUX.2-dev"
KLEIN_BASE_4B = "black-forest-labs/FLUX.2-klein-base-4B"
KLEIN_BASE_9B = "black-forest-labs/FLUX.2-klein-base-9B"
DEV: dict[str, Any] = {**LARGE_SETTINGS, "guidance": 1.0, "reference_guidance": 1.0, "reference_steps": 50}
"""FLUX.2-dev has its guidance inside."""

KLEIN: dict[str, Any] = {**LARGE_SETTINGS, "guidance": 4.0, "reference_guidance": 4.0, "reference_steps": 50}
"""Guidance and steps of the base models are those of their authors' own call."""

DISTILLED: dict[str, Any] = {"steps": 4, "step_noise": "none", "times": "stock"}
"""The distilled models were made for four of their pipeline's own steps."""

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "flux2-klein-base-4b",
        "FLUX.2-klein's base model of 4 B parameters at 1024x1024, flow matching, multi-step",
        KLEIN_BASE_4B, CONFIGS / "klein-base-4b", licences.APACHE, KLEIN, parameters=4,
    ),
    PublishedReference(
        "flux2-klein-base-9b",
        "FLUX.2-klein's base model of 9 B parameters at 1024x1024, flow matching, multi-step",
        KLEIN_BASE_9B, CONFIGS / "klein-base-9b", licences.FLUX_2_KLEIN_BASE_9B, KLEIN, parameters=9,
    ),
    PublishedReference(
        "flux2",
        "FLUX.2-dev at 1024x1024, flow matching, multi-step, 32 B parameters",
        FLUX_2, CONFIGS / "dev", licences.FLUX_2_DEV, DEV, parameters=32,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "flux2-klein",
        "FLUX.2-klein of 4 B parameters, made for 4 steps at 1024x1024",
        "black-forest-labs/FLUX.2-klein-4B", CONFIGS / "klein-4b", licences.APACHE, KLEIN,
        reference="flux2-klein-base-4b", parameters=4, **DISTILLED,
    ),
    PublishedGenerator(
        "flux2-klein-9b",
        "FLUX.2-klein of 9 B parameters, made for 4 steps at 1024x1024",
        "black-forest-labs/FLUX.2-klein-9B", CONFIGS / "klein-9b", licences.FLUX_2_KLEIN_9B, KLEIN,
        reference="flux2-klein-base-9b", parameters=9, **DISTILLED,
    ),
    PublishedGenerator(
        "flux2-klein-onestep",
        "The network of FLUX.2-klein's base model of 4 B parameters read out once, to be trained",
        KLEIN_BASE_4B, CONFIGS / "klein-base-4b", licences.APACHE, KLEIN,
        reference="flux2-klein-base-4b", parameters=4,
    ),
    PublishedGenerator(
        "flux2-onestep",
        "FLUX.2-dev's network read out once, to be trained",
        FLUX_2, CONFIGS / "dev", licences.FLUX_2_DEV, DEV,
        reference="flux2", parameters=32,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "Flux2KleinPipeline",
        "dipp_flux_2.family:Flux2KleinFamily",
        summary="Flux.2 klein: a flow-matching MMDiT, one token for 16 by 16 pixels, prompts by Qwen3",
    )
    register(
        "Flux2Pipeline",
        "dipp_flux_2.family:Flux2Family",
        summary="Flux.2 dev: the same with guidance as an input, prompts by Mistral 3",
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
