"""Lumina-Image pipelines: a record for each published one, and what the plugin registers."""

from __future__ import annotations

from dataclasses import replace
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

CONFIGS = Path(__file__).parent / "published" / "lumina2"
LUMINA = "Alpha-VLLM/Lumina-Image-2.0"
LICENCE = replace(licences.APACHE, note="its text encoder is Gemma 2 2B, on Google's Gemma terms")

COMMON: dict[str, Any] = {
    **SETTINGS,
    "guidance": 4.0,
    "reference_guidance": 4.0,
    "reference_steps": 30,
    "compile": "off",  # prompts of every length would be compiled anew
}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "lumina2",
        "Lumina-Image 2.0 at 1024x1024, flow matching, multi-step, 2.6 B parameters",
        LUMINA, CONFIGS, LICENCE, COMMON,
        parameters=2.6,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "lumina2-onestep",
        "Lumina-Image 2.0's network read out once, to be trained",
        LUMINA, CONFIGS, LICENCE, COMMON,
        reference="lumina2", parameters=2.6,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "Lumina2Pipeline",
        "dipp_lumina.family:LuminaFamily",
        summary="Lumina-Image 2.0: a flow-matching transformer over prompt and image tokens, with Gemma 2 as encoder",
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
