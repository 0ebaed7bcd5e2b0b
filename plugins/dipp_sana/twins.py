"""Tiny random pipelines of SANA's and SANA-Sprint's classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipp_toolkit.models.tiny_pipelines import (
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_gemma2_encoder,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_gemma_tokenizer

CHANNELS = 4
SIDE = 8
TEXT_WIDTH = 16
LEVELS = (8, 8, 16)
"""Channels of the autoencoder. Every level but the last one halves the side: images of 32 pixels are the smallest that
the stock pipelines draw."""


def write_sana_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    sample_size: int = SIDE,
    qk_norm: bool = False,
    timestep_scale: float = 1.0,
) -> Path:
    """Save a random `SanaPipeline` with latents `(4, 8, 8)` and images `(3, 32, 32)`.

    As it stands it is SANA 1.0's; 1.5's has norms of queries and keys, and SANA-Sprint's teacher also times from 0 to
    1.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        sample_size: side of a latent.
        qk_norm: whether queries and keys are normed.
        timestep_scale: by which the scheduler's times are multiplied.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline

    check_prediction(prediction_type, ("velocity",), "SanaPipeline")
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    settings = {"sample_size": sample_size, "timestep_scale": timestep_scale}
    return _written(SanaPipeline, scheduler, folder, seed, settings | (NORMED if qk_norm else {}))


def write_sana_sprint_twin(
    folder: Path, *, seed: int = 0, prediction_type: str | None = None, sample_size: int = SIDE
) -> Path:
    """Save a random `SanaSprintPipeline` with latents `(4, 8, 8)` and images `(3, 32, 32)`.

    Its text encoder, tokenizer and autoencoder are those of the `SanaPipeline` twin of the same seed.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"trigflow"`, the one there is.
        sample_size: side of a latent.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import SanaSprintPipeline, SCMScheduler

    check_prediction(prediction_type, ("trigflow",), "SanaSprintPipeline")
    settings = {**NORMED, "sample_size": sample_size, "guidance_embeds": True}
    return _written(SanaSprintPipeline, SCMScheduler(), folder, seed, settings)


NORMED = {"qk_norm": "rms_norm_across_heads"}


def _written(kind: Any, scheduler: Any, folder: Path, seed: int, settings: Mapping[str, Any]) -> Path:
    """A pipeline of either class; the transformer is drawn last, so that what comes before it is the same for both."""
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    with drawn_from(seed):
        tokenizer = tiny_gemma_tokenizer()
        text_encoder = tiny_gemma2_encoder(tokenizer, width=TEXT_WIDTH)
        vae = finished(
            AutoencoderDC(
                latent_channels=CHANNELS,
                attention_head_dim=8,
                encoder_block_types=blocks,
                decoder_block_types=blocks,
                encoder_block_out_channels=LEVELS,
                decoder_block_out_channels=LEVELS,
                encoder_layers_per_block=(1, 1, 1),
                decoder_layers_per_block=(1, 1, 1),
                encoder_qkv_multiscales=((), (), (5,)),
                decoder_qkv_multiscales=((), (), (5,)),
                upsample_block_type="interpolate",
                downsample_block_type="Conv",
                scaling_factor=0.41407,
            )
        )
        transformer = finished(
            SanaTransformer2DModel(
                in_channels=CHANNELS,
                out_channels=CHANNELS,
                num_attention_heads=2,
                attention_head_dim=8,
                num_layers=2,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=TEXT_WIDTH,
                **settings,
            )
        )
    return save_quietly(kind(tokenizer, text_encoder, vae, transformer, scheduler), folder)
