"""A tiny twin of the published PixArt-alpha: its component classes and its settings, everything but the size."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_t5_encoder,
    tiny_vae,
)
from dipp_toolkit.models.tiny_tokenizers import T5_TOKENS, tiny_t5_tokenizer

CHANNELS = 4
TOLD_SIZE = 128
TEXT_WIDTH = 32


def write_pixart_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = T5_TOKENS,
    sample_size: int = LATENT_SIDE,
) -> Path:
    """Save a random `PixArtAlphaPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Its transformer has twice the channels out that it has in, as published: half of them are a variance.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` unless said.
        max_tokens: the tokenizer's `model_max_length`.
        sample_size: of a latent; at 128 the transformer is told an image's size, as the published one of 1024 pixels.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    check_prediction(prediction_type, ("epsilon", "v_prediction", "sample"), "PixArtAlphaPipeline")
    told = sample_size == TOLD_SIZE
    head = 24 if told else 16  # a third of both heads' width is that of each number about the size
    with drawn_from(seed):
        tokenizer = tiny_t5_tokenizer(max_tokens)
        text_encoder = tiny_t5_encoder(tokenizer, width=TEXT_WIDTH)
        transformer = finished(
            PixArtTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=head,
                num_layers=2,
                in_channels=CHANNELS,
                out_channels=2 * CHANNELS,
                sample_size=sample_size,
                patch_size=2,
                cross_attention_dim=2 * head,
                caption_channels=TEXT_WIDTH,
                norm_type="ada_norm_single",
                use_additional_conditions=told,
            )
        )
        vae = tiny_vae(latent_channels=CHANNELS, scaling_factor=0.18215)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="linear",
        solver_order=2,
        algorithm_type="dpmsolver++",
        prediction_type=prediction_type or "epsilon",
    )
    return save_quietly(PixArtAlphaPipeline(tokenizer, text_encoder, vae, transformer, scheduler), folder)
