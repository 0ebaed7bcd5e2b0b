"""SANA and SANA-Sprint pipelines: a record for each published one, and what the plugin registers.

The files of `sana-1.5` are the hub's own to the byte: their digests, and those that are recorded for the repository,
are the same. Of the other repositories no file was at hand. Their values are those of diffusers' script for converting
them, and the sizes of SANA-Sprint's and its teachers' checkpoints agree with the numbers of parameters.
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
from dipp_toolkit.utils.licences import Licence

CONFIGS = Path(__file__).parent / "published"
HUB = "Efficient-Large-Model/"
SANA = HUB + "Sana_1600M_1024px_BF16_diffusers"
SPRINT = HUB + "Sana_Sprint_1.6B_1024px_diffusers"
SMALL_SPRINT = HUB + "Sana_Sprint_0.6B_1024px_diffusers"

GEMMA = "its text encoder is under Gemma's terms of use"


def _nscl(hub: str) -> Licence:
    return Licence(
        "other", f"https://huggingface.co/{hub}/blob/main/LICENSE.txt", "NSCL v2-custom", non_commercial=True,
        note=f"its card names NVIDIA's licence of that name and says for research purposes only; {GEMMA}",
    )  # fmt: skip


def _open_model(hub: str) -> Licence:
    return Licence(
        "other", "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
        "nvidia-open-model-license",
        note=f"as NVlabs/Sana#332 quotes {hub}'s page; its card of March 2025 said NSCL v2-custom and for research "
        f"purposes only; {GEMMA}",
    )  # fmt: skip


DISTIL: dict[str, Any] = {**SETTINGS, "reference_steps": 20, "decode_checkpointing": True}
"""Guidance 4.5 and 20 steps are the stock pipeline's own."""

BF16: dict[str, Any] = {**DISTIL, "frozen_precision": "bf16"}
"""Of weights that were trained in bfloat16. SANA 1.0's of 0.6 B and of 512 pixels were trained in float16, whose range
is narrower and whose steps are finer: they are read in float32."""


def _reference(
    name: str, what: str, parameters: float, repository: str, defaults: dict[str, Any] = BF16
) -> PublishedReference:
    hub = HUB + repository
    summary = f"{what}, {parameters:g} B parameters, multi-step"
    return PublishedReference(name, summary, hub, CONFIGS / name, _nscl(hub), defaults, parameters=parameters)


REFERENCES: tuple[PublishedReference, ...] = (
    _reference("sana", "SANA at 1024x1024, flow matching", 1.6, "Sana_1600M_1024px_BF16_diffusers"),
    _reference("sana-512", "SANA at 512x512, flow matching", 1.6, "Sana_1600M_512px_diffusers", DISTIL),
    _reference("sana-0.6b", "SANA at 1024x1024, flow matching", 0.6, "Sana_600M_1024px_diffusers", DISTIL),
    _reference("sana-0.6b-512", "SANA at 512x512, flow matching", 0.6, "Sana_600M_512px_diffusers", DISTIL),
    _reference("sana-1.5", "SANA-1.5 at 1024x1024, flow matching", 1.6, "SANA1.5_1.6B_1024px_diffusers"),
    _reference("sana-1.5-4.8b", "SANA-1.5 at 1024x1024, flow matching", 4.8, "SANA1.5_4.8B_1024px_diffusers"),
    _reference(
        "sana-sprint-teacher", "SANA that SANA-Sprint was distilled from, at 1024x1024", 1.6,
        "SANA_Sprint_1.6B_1024px_teacher_diffusers",
    ),
    _reference(
        "sana-sprint-teacher-0.6b", "SANA that SANA-Sprint of 0.6 B was distilled from, at 1024x1024", 0.6,
        "Sana_Sprint_0.6B_1024px_teacher_diffusers",
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "sana-onestep",
        "SANA's network read out once, to be trained",
        SANA, CONFIGS / "sana", _nscl(SANA), BF16,
        reference="sana", parameters=1.6,
    ),
    PublishedGenerator(
        "sana-sprint",
        "SANA-Sprint, made for 1 to 4 steps at 1024x1024, 1.6 B parameters",
        SPRINT, CONFIGS / "sana-sprint", _open_model(SPRINT), BF16,
        reference="sana-sprint-teacher", parameters=1.6,
    ),
    PublishedGenerator(
        "sana-sprint-0.6b",
        "SANA-Sprint, made for 1 to 4 steps at 1024x1024, 0.6 B parameters",
        SMALL_SPRINT, CONFIGS / "sana-sprint-0.6b", _open_model(SMALL_SPRINT), BF16,
        reference="sana-sprint-teacher-0.6b", parameters=0.6,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register("SanaPipeline", "dipp_sana.family:SanaFamily", summary="SANA: a linear DiT with a Gemma 2 text encoder")
    register(
        "SanaSprintPipeline",
        "dipp_sana.family:SanaSprintFamily",
        summary="SANA-Sprint: SANA in a few steps of TrigFlow, guidance as an input",
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
