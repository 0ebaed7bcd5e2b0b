"""Stable Diffusion 3 without weights."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.blueprints import PipelineBlueprint

HUB = "stabilityai/stable-diffusion-3-medium-diffusers"


def sd3() -> PipelineBlueprint:
    """Stable Diffusion 3 medium."""
    return PipelineBlueprint(Path(__file__).parent / "published" / "sd3", HUB)
