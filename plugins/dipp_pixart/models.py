"""The published PixArt-alpha pipelines and their one-step generators, a record each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit import licences
from dipp_toolkit.published import SETTINGS, PublishedGenerator, PublishedPipeline, PublishedReference

CONFIGS = Path(__file__).parent / "published" / "pixart-alpha"
PIXART = "PixArt-alpha/PixArt-XL-2-512x512"

READOUT = 0.4
"""Where the schedule has about as much signal as noise (alpha = 0.44), so the sample is read off without blowing up."""

DISTIL: dict[str, Any] = {
    **SETTINGS,
    "reference_steps": 20,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "long_prompts": "cut",
}

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "pixart-alpha",
        "PixArt-alpha at 512x512 (PixArt-XL-2-512x512), multi-step",
        PIXART, CONFIGS, licences.PIXART_OPENRAIL,
        {**DISTIL, "readout": READOUT},
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "pixart-onestep",
        "PixArt-alpha's network read out once, to be trained",
        PIXART, CONFIGS, licences.PIXART_OPENRAIL, DISTIL,
        reference="pixart-alpha", readout=READOUT,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)
