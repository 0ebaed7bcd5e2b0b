"""A tiny twin of the published FLUX.1: its component classes and its settings, everything but the size."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.models.tiny_pipelines import (
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_t5_encoder,
    tiny_vae,
)
from dipp_toolkit.models.tiny_tokenizers import CLIP_TOKENS, tiny_clip_tokenizer, tiny_t5_tokenizer

WIDTH, SECOND_WIDTH = 16, 32
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""

PATCH = 2
"""The pipeline packs patches of two by two latents into one token."""

PUBLISHED_T5_TOKENS = 512


def write_flux_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    latent_channels: int = 16,
    guidance_embeds: bool = True,
    dynamic_shifting: bool = True,
    max_tokens: int = CLIP_TOKENS,
    t5_tokens: int = PUBLISHED_T5_TOKENS,
) -> Path:
    """Save a random `FluxPipeline` with latents `(16, 8, 8)`, packed `(16, 64)`, and images `(3, 16, 16)`.

    As it stands it is FLUX.1-dev's; FLUX.1-schnell's has neither guidance embeddings nor dynamic shifting.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        latent_channels: of the autoencoder; a token of the transformer has four times as many.
        guidance_embeds: whether the transformer takes a guidance scale as an input.
        dynamic_shifting: whether the schedule depends on the image's size, or has no shift at all.
        max_tokens: the CLIP tokenizer's `model_max_length`.
        t5_tokens: the T5 tokenizer's `model_max_length`; the stock pipeline reads 512 of them unless told otherwise.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    check_prediction(prediction_type, ("velocity",), "FluxPipeline")
    with drawn_from(seed):
        tokenizer, second_tokenizer = tiny_clip_tokenizer(max_tokens), tiny_t5_tokenizer(t5_tokens)
        text_encoder = tiny_clip_encoder(tokenizer, width=WIDTH)
        second_encoder = tiny_t5_encoder(second_tokenizer, width=SECOND_WIDTH)
        transformer = finished(
            FluxTransformer2DModel(
                in_channels=latent_channels * PATCH**2,
                num_layers=1,
                num_single_layers=1,
                num_attention_heads=2,
                attention_head_dim=sum(AXES),
                axes_dims_rope=AXES,
                joint_attention_dim=SECOND_WIDTH,
                pooled_projection_dim=WIDTH,
                guidance_embeds=guidance_embeds,
            )
        )
        vae = tiny_vae(
            latent_channels=latent_channels, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0 if dynamic_shifting else 1.0,
        use_dynamic_shifting=dynamic_shifting,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    pipeline = FluxPipeline(scheduler, vae, text_encoder, tokenizer, second_encoder, second_tokenizer, transformer)
    return save_quietly(pipeline, folder)
