"""PixArt-alpha pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register

READOUT = 0.4
"""Where the schedule has about as much signal as noise (alpha = 0.44), so the sample is read off without blowing up."""

DISTIL: dict[str, Any] = {
    "reference": "pixart-alpha",
    "readout": READOUT,
    "guidance": 4.5,
    "reference_guidance": 4.5,
    "reference_steps": 20,
    "mode": "lora",
    "precision": "bf16",
    "batch_size": 4,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "eval_count": 16,
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
        partial(load, "reference", "pixart-alpha"),
        summary="PixArt-alpha at 512x512 (PixArt-XL-2-512x512), multi-step",
        defaults=DISTIL,
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "pixart-onestep",
        partial(load, "generator", "pixart-alpha", readout=READOUT),
        summary="PixArt-alpha's network read out once, to be trained",
        defaults=DISTIL,
    )


def load(role: str, blueprint: str, **options: Any) -> Any:
    """A reference or a generator of the published weights."""
    from dipp_toolkit import published

    return {"reference": published.published_reference, "generator": published.published_generator}[role](
        blueprint, **options
    )
