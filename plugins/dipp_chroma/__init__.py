"""Chroma pipelines: a record for each published one, and what the plugin registers.

Guidance and steps are those of the authors' own call. Chroma1-Flash's page names no number of steps: eight are what its
author's earlier file says in its name (`chroma-unlocked-v47-flash-heun-8-steps-cfg-1`), of Heun's method, where the
pipeline's own scheduler takes Euler's. The settings are starting points for a training.
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
CHROMA = "lodestones/Chroma1-HD"
COMMON: dict[str, Any] = {**LARGE_SETTINGS, "guidance": 3.0, "reference_guidance": 3.0, "reference_steps": 40}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "chroma",
        "Chroma1-HD at 1024x1024, flow matching, multi-step, 8.9 B parameters",
        CHROMA, CONFIGS / "chroma", licences.APACHE, COMMON, parameters=8.9,
    ),
    PublishedReference(
        "chroma-base",
        "Chroma1-Base, trained at 512x512, flow matching, multi-step, 8.9 B parameters",
        "lodestones/Chroma1-Base", CONFIGS / "chroma-base", licences.APACHE, COMMON, parameters=8.9,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "chroma-onestep",
        "Chroma1-HD's network read out once, to be trained",
        CHROMA, CONFIGS / "chroma", licences.APACHE, COMMON,
        reference="chroma", parameters=8.9,
    ),
    PublishedGenerator(
        "chroma-flash",
        "Chroma1-Flash, made for about 8 steps without guidance, 8.9 B parameters",
        "lodestones/Chroma1-Flash", CONFIGS / "chroma-flash", licences.APACHE, COMMON,
        reference="chroma", parameters=8.9, steps=8, step_noise="none", times="stock",
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "ChromaPipeline",
        "dipp_chroma.family:ChromaFamily",
        summary="Chroma: Flux's MMDiT with T5 alone, a mask of its padding and guidance of two passes",
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
