"""PixArt-alpha pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.published import SETTINGS, published_generator, published_reference

READOUT = 0.4
"""Where the schedule has about as much signal as noise (alpha = 0.44), so the sample is read off without blowing up."""

DISTIL: dict[str, Any] = {
    **SETTINGS,
    "reference": "pixart-alpha",
    "readout": READOUT,
    "reference_steps": 20,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "long_prompts": "cut",
}


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "PixArtAlphaPipeline", "dipp_pixart.family:PixArtFamily", summary="PixArt-alpha's DiT with a T5 text encoder"
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    for name in ("pixart-alpha", "pixart-onestep"):
        register(name, "dipp_pixart.blueprints:pixart_alpha", summary="PixArt-XL-2-512x512 without weights")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register(
        "pixart-alpha",
        partial(published_reference, "pixart-alpha"),
        summary="PixArt-alpha at 512x512 (PixArt-XL-2-512x512), multi-step",
        defaults=DISTIL,
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "pixart-onestep",
        partial(published_generator, "pixart-alpha", readout=READOUT),
        summary="PixArt-alpha's network read out once, to be trained",
        defaults=DISTIL,
    )
