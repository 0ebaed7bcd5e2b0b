"""Flux without weights."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.blueprints import PipelineBlueprint

HUB = "black-forest-labs/FLUX.1-dev"


def flux() -> PipelineBlueprint:
    """FLUX.1-dev."""
    return PipelineBlueprint(Path(__file__).parent / "published" / "flux", HUB)
