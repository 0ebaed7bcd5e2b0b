"""Z-Image pipelines: a record for each published one, and what the plugin registers."""

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
Z_IMAGE = "Tongyi-MAI/Z-Image"
TURBO = "Tongyi-MAI/Z-Image-Turbo"
FUN_DISTILL = "alibaba-pai/Z-Image-Fun-Lora-Distill"

COMMON: dict[str, Any] = {
    **LARGE_SETTINGS,
    "guidance": 5.0,  # the stock pipeline's guidance_scale of 4, which its card asks for
    "reference_guidance": 5.0,
    "reference_steps": 28,
}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "z-image",
        "Z-Image at 1024x1024, flow matching, multi-step, 6 B parameters",
        Z_IMAGE, CONFIGS / "z-image", licences.APACHE, COMMON,
        parameters=6,
    ),
    PublishedReference(
        "z-image-turbo-reference",
        "Z-Image-Turbo as a teacher of 8 steps without guidance, 6 B parameters",
        TURBO, CONFIGS / "z-image-turbo", licences.APACHE,
        {**COMMON, "guidance": 1.0, "reference_guidance": 1.0, "reference_steps": 8},
        parameters=6, guided=False,
    ),
)  # fmt: skip


def _fun_distill(name: str, steps: int) -> PublishedGenerator:
    """A LoRA that was distilled for so many steps without guidance, at the strength that its card asks for."""
    return PublishedGenerator(
        name, f"Z-Image-Fun-Lora-Distill, a LoRA over Z-Image made for {steps} steps", Z_IMAGE, CONFIGS / "z-image",
        licences.APACHE, COMMON, licences.APACHE,
        reference="z-image", lora=(f"{FUN_DISTILL}:Z-Image-Fun-Lora-Distill-{steps}-Steps-2603.safetensors=0.8",),
        parameters=6, steps=steps, step_noise="none", times="stock",
    )  # fmt: skip


GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "z-image-onestep",
        "Z-Image's network read out once, to be trained",
        Z_IMAGE, CONFIGS / "z-image", licences.APACHE, COMMON,
        reference="z-image", parameters=6,
    ),
    PublishedGenerator(
        "z-image-turbo",
        "Z-Image-Turbo, made for 8 steps at 1024x1024, 6 B parameters",
        TURBO, CONFIGS / "z-image-turbo", licences.APACHE, COMMON,
        reference="z-image", parameters=6, steps=8, step_noise="none", times="stock",
    ),
    _fun_distill("z-image-fun-distill", 8),
    _fun_distill("z-image-fun-distill-4", 4),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "ZImagePipeline",
        "dipp_z_image.family:ZImageFamily",
        summary="Z-Image: a flow-matching transformer over one stream of tokens, with Qwen3 as text encoder",
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
