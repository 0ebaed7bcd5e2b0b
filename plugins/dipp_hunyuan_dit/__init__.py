"""HunyuanDiT pipelines: a record for each published one, and what the plugin registers.

Numbers are those of the repositories, of diffusers' pages and of github.com/Tencent/HunyuanDiT. The settings are
starting points for a training, not results of one.
"""

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

CONFIGS = Path(__file__).parent / "published" / "hunyuan-dit"
HUNYUAN = "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"

READOUT = 545 / 999
"""Timestep 545 of 999, where sigma is 2.5 alpha in version 1.2's noise schedule (0.928 and 0.372). The one-step
generators of SIM and SiD-LSG are read out where theirs is; no one-step HunyuanDiT was found published."""

STEPS, DISTILLED_STEPS = 50, 25
"""Of the stock pipeline, and of the example on the distilled model's card: it takes half of them."""

COMMON: dict[str, Any] = {
    **SETTINGS,
    "reference_guidance": 5.0,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "long_prompts": "cut",
}
READ: dict[str, Any] = {"readout": READOUT, "input_scale": "sigma"}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "hunyuan-dit",
        "HunyuanDiT 1.2 at 1024x1024, multi-step, for English and Chinese prompts",
        HUNYUAN, CONFIGS, licences.HUNYUAN_DIT, {**COMMON, **READ, "reference_steps": STEPS},
        parameters=1.5,
    ),
    PublishedReference(
        "hunyuan-dit-distilled",
        "HunyuanDiT 1.2 distilled to half as many steps, still guided",
        f"{HUNYUAN}-Distilled", CONFIGS, licences.HUNYUAN_DIT, {**COMMON, **READ, "reference_steps": DISTILLED_STEPS},
        parameters=1.5,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "hunyuan-dit-onestep",
        "HunyuanDiT's network read out once, to be trained",
        HUNYUAN, CONFIGS, licences.HUNYUAN_DIT, {**COMMON, "reference_steps": STEPS},
        reference="hunyuan-dit", readout=READOUT, input_scale="sigma", parameters=1.5,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "HunyuanDiTPipeline",
        "dipp_hunyuan_dit.family:HunyuanDiTFamily",
        summary="HunyuanDiT: a DiT with a bilingual CLIP and an mT5 text encoder",
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
