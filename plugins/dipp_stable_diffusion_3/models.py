"""The published Stable Diffusion 3 and 3.5 pipelines and their few-step generators, a record each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit.models.published import SETTINGS, PublishedGenerator, PublishedPipeline, PublishedReference
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
        reference="sd35-medium",
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)
