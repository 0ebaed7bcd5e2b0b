"""Flux pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.published import SETTINGS, published_generator, published_reference

DISTIL: dict[str, Any] = {
    **SETTINGS,
    "reference": "flux",
    "guidance": 1.0,  # FLUX.1-dev has its guidance inside
    "reference_guidance": 1.0,
    "reference_steps": 28,
    "frozen_precision": "bf16",
    "batch_size": 1,
    "recompute_generator": True,
    "gradient_checkpointing": True,
    "decode_checkpointing": True,
}


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "FluxPipeline",
        "dipp_flux.family:FluxFamily",
        summary="Flux: a flow-matching MMDiT over packed latents",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    for name in ("flux", "flux-onestep"):
        register(name, "dipp_flux.blueprints:flux", summary="FLUX.1-dev without weights")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register(
        "flux",
        partial(published_reference, "flux"),
        summary="FLUX.1-dev at 1024x1024, flow matching, multi-step, 12 B parameters",
        defaults=DISTIL,
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "flux-onestep",
        partial(published_generator, "flux"),
        summary="FLUX.1-dev's network read out once, to be trained",
        defaults=DISTIL,
    )
