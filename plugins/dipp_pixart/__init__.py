"""PixArt-alpha pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "PixArtAlphaPipeline", "dipp_pixart.family:PixArtFamily", summary="PixArt-alpha's DiT with a T5 text encoder"
    )
