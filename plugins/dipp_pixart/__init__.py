"""PixArt-alpha pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import register_blueprints, register_models

from .models import GENERATORS, MODELS, REFERENCES


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "PixArtAlphaPipeline", "dipp_pixart.family:PixArtFamily", summary="PixArt-alpha's DiT with a T5 text encoder"
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
