"""PixArt-alpha and PixArt-Sigma pipelines: a record for each published one, and what the plugin registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import (
    SETTINGS,
    PublishedGenerator,
    PublishedPipeline,
    PublishedReference,
    register_blueprints,
    register_models,
)
from dipp_toolkit.utils import licences

CONFIGS = Path(__file__).parent / "published" / "pixart-alpha"
SIGMA_CONFIGS = Path(__file__).parent / "published" / "pixart-sigma"
SMALL_CONFIGS = Path(__file__).parent / "published" / "pixart-sigma-512"
PIXART = "PixArt-alpha/PixArt-XL-2-512x512"
SIGMA = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
SMALL = "PixArt-alpha/PixArt-Sigma-XL-2-512-MS:transformer"
"""The transformer alone, with its configuration; the rest of its pipeline is that of 1024 pixels."""

READOUT = 440 / 999
"""Timestep 440 of 999, where sigma is 2.5 alpha (0.929 and 0.371). SIM (Luo et al. 2024), which DI++ goes back to,
reads out its one-step PixArt-alpha there and gives its network sigma z. PixArt-Sigma has the same noise schedule."""

DMD_READOUT = 400 / 999
"""Timestep 400 of 999, where PixArt-alpha's DMD is read out: app/app_pixart_dmd.py of
github.com/PixArt-alpha/PixArt-sigma."""

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
        {**DISTIL, "readout": READOUT, "input_scale": "sigma"},
        parameters=0.6,
    ),
    PublishedReference(
        "pixart-sigma",
        "PixArt-Sigma at 1024x1024 (PixArt-Sigma-XL-2-1024-MS), multi-step",
        SIGMA, SIGMA_CONFIGS, licences.PIXART_SIGMA_OPENRAIL,
        {**DISTIL, "readout": READOUT, "input_scale": "sigma"},
        parameters=0.6,
    ),
    PublishedReference(
        "pixart-sigma-512",
        "PixArt-Sigma at 512x512 (PixArt-Sigma-XL-2-512-MS), multi-step",
        SIGMA, SMALL_CONFIGS, licences.PIXART_SIGMA_SMALL_OPENRAIL,
        {**DISTIL, "readout": READOUT, "input_scale": "sigma"}, licences.PIXART_SIGMA_OPENRAIL,
        parameters=0.6, network=SMALL,
    ),
)  # fmt: skip

GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "pixart-onestep",
        "PixArt-alpha's network read out once, to be trained",
        PIXART, CONFIGS, licences.PIXART_OPENRAIL, DISTIL,
        reference="pixart-alpha", readout=READOUT, input_scale="sigma", parameters=0.6,
    ),
    PublishedGenerator(
        "pixart-dmd",
        "PixArt-alpha distilled by DMD, one step at 512x512",
        PIXART, CONFIGS, licences.PIXART_DMD_OPENRAIL, DISTIL, licences.PIXART_OPENRAIL,
        reference="pixart-alpha", readout=DMD_READOUT, input_scale="unit", parameters=0.6,
        weights="PixArt-alpha/PixArt-Alpha-DMD-XL-2-512x512:transformer/diffusion_pytorch_model.bin",
    ),
    PublishedGenerator(
        "pixart-sigma-onestep",
        "PixArt-Sigma's network read out once, to be trained",
        SIGMA, SIGMA_CONFIGS, licences.PIXART_SIGMA_OPENRAIL, DISTIL,
        reference="pixart-sigma", readout=READOUT, input_scale="sigma", parameters=0.6,
    ),
    PublishedGenerator(
        "pixart-sigma-512-onestep",
        "PixArt-Sigma's network of 512x512 read out once, to be trained",
        SIGMA, SMALL_CONFIGS, licences.PIXART_SIGMA_SMALL_OPENRAIL, DISTIL, licences.PIXART_SIGMA_OPENRAIL,
        reference="pixart-sigma-512", readout=READOUT, input_scale="sigma", parameters=0.6, network=SMALL,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "PixArtAlphaPipeline", "dipp_pixart.family:PixArtFamily", summary="PixArt-alpha's DiT with a T5 text encoder"
    )
    register(
        "PixArtSigmaPipeline",
        "dipp_pixart.family:PixArtSigmaFamily",
        summary="PixArt-Sigma's DiT with a T5 text encoder of 300 tokens, over SDXL's latents",
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
