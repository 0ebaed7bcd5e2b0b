"""Qwen-Image pipelines: a record for each published one, and what the plugin registers.

The architecture is that of diffusers' class, whose defaults are the published ones; the numbers of parameters are those
of the published files, to the byte. The settings are starting points for a training.
"""

from __future__ import annotations

import math
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

CONFIGS = Path(__file__).parent / "published" / "qwen-image"
QWEN_IMAGE = "Qwen/Qwen-Image"
LIGHTNING = "lightx2v/Qwen-Image-Lightning"
DISTIL: dict[str, Any] = {
    **LARGE_SETTINGS,
    "guidance": 4.0,  # and the steps are those of its authors' own call
    "reference_guidance": 4.0,
    "reference_steps": 50,
}

LIGHTNING_SCHEDULER: dict[str, Any] = {
    "base_shift": math.log(3),
    "max_shift": math.log(3),
    "shift": 1.0,
    "shift_terminal": None,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}
"""What Qwen-Image-Lightning's authors set in the pipeline's scheduler (github.com/ModelTC/Qwen-Image-Lightning,
`generate_with_diffusers.py`): a shift of 3 for images of every size. The levels of 4 steps are 1, 0.9, 0.75, 0.5."""

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "qwen-image",
        "Qwen-Image at 1024x1024, flow matching, multi-step, 20 B parameters",
        QWEN_IMAGE, CONFIGS, licences.APACHE, DISTIL, parameters=20,
    ),
)  # fmt: skip


def _lightning(name: str, steps: int) -> PublishedGenerator:
    """A LoRA that was distilled for so many steps without guidance, at its own times."""
    return PublishedGenerator(
        name, f"Qwen-Image-Lightning, a LoRA over Qwen-Image made for {steps} steps", QWEN_IMAGE, CONFIGS,
        licences.APACHE, DISTIL, licences.APACHE,
        reference="qwen-image", lora=(f"{LIGHTNING}:Qwen-Image-Lightning-{steps}steps-V2.0.safetensors",),
        parameters=20, steps=steps, step_noise="none", times="stock", scheduler=LIGHTNING_SCHEDULER,
    )  # fmt: skip


GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "qwen-image-onestep",
        "Qwen-Image's network read out once, to be trained",
        QWEN_IMAGE, CONFIGS, licences.APACHE, DISTIL,
        reference="qwen-image", parameters=20,
    ),
    _lightning("qwen-image-lightning", 4),
    _lightning("qwen-image-lightning-8", 8),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "QwenImagePipeline",
        "dipp_qwen_image.family:QwenImageFamily",
        summary="Qwen-Image: a flow-matching MMDiT over packed latents, prompts by Qwen2.5-VL",
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
