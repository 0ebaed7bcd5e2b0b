"""PixArt-alpha without weights."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.blueprints import PipelineBlueprint

HUB = "PixArt-alpha/PixArt-XL-2-512x512"


def pixart_alpha() -> PipelineBlueprint:
    """PixArt-XL-2-512x512."""
    return PipelineBlueprint(Path(__file__).parent / "published" / "pixart-alpha", HUB)
