"""Folders as plain diffusers has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline


def pipeline_of(folder: Path) -> Any:
    """The stock pipeline of a folder, without a progress bar."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
