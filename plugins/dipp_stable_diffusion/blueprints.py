"""Stable Diffusion pipelines without weights."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.blueprints import PipelineBlueprint

HUBS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd-turbo": "stabilityai/sd-turbo",
}


def blueprint(name: str) -> PipelineBlueprint:
    """The blueprint of this name, one of `HUBS`."""
    return PipelineBlueprint(Path(__file__).parent / "published" / name, HUBS[name])
