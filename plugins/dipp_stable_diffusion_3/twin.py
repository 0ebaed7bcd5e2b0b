"""A tiny twin of the published Stable Diffusion 3: its component classes and its settings, everything but the size."""

from __future__ import annotations

from pathlib import Path

from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_t5_encoder,
    tiny_vae,
)
from dipp_toolkit.models.tiny_tokenizers import CLIP_TOKENS, tiny_clip_tokenizer, tiny_t5_tokenizer

WIDTH, SECOND_WIDTH, THIRD_WIDTH = 16, 24, 48
"""Of the text encoders. Both CLIP ones side by side are narrower than the T5 one, so that zeros must be added."""

HEADS, HEAD_WIDTH = 2, 16
PUBLISHED_T5_TOKENS = 512


def write_stable_diffusion_3_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    latent_channels: int = 16,
    qk_norm: str | None = None,
    dual_attention_layers: tuple[int, ...] = (),
    max_tokens: int = CLIP_TOKENS,
    t5_tokens: int = PUBLISHED_T5_TOKENS,
    t5: bool = True,
) -> Path:
    """Save a random `StableDiffusion3Pipeline` with latents `(16, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        latent_channels: of the autoencoder and the transformer.
        qk_norm: None as in Stable Diffusion 3, or `"rms_norm"` as in 3.5.
        dual_attention_layers: which of its two blocks attend twice, as the first 13 of 24 do in 3.5 medium.
        max_tokens: the CLIP tokenizers' `model_max_length`.
        t5_tokens: the T5 tokenizer's `model_max_length`; the stock pipeline reads 256 of them unless told otherwise.
        t5: whether it has its third text encoder, which people leave out for its size.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    check_prediction(prediction_type, ("velocity",), "StableDiffusion3Pipeline")
    with drawn_from(seed):
        tokenizers = (
            tiny_clip_tokenizer(max_tokens),
            tiny_clip_tokenizer(max_tokens, pad_token="!"),
            tiny_t5_tokenizer(t5_tokens),
        )
        text_encoder = tiny_clip_encoder(tokenizers[0], width=WIDTH, projected=True)
        second_encoder = tiny_clip_encoder(tokenizers[1], width=SECOND_WIDTH, projected=True)
        third_encoder = tiny_t5_encoder(tokenizers[2], width=THIRD_WIDTH)
        transformer = finished(
            SD3Transformer2DModel(
                sample_size=LATENT_SIDE,
                patch_size=2,
                in_channels=latent_channels,
                out_channels=latent_channels,
                num_layers=2,
                num_attention_heads=HEADS,
                attention_head_dim=HEAD_WIDTH,
                joint_attention_dim=THIRD_WIDTH,
                caption_projection_dim=HEADS * HEAD_WIDTH,
                pooled_projection_dim=WIDTH + SECOND_WIDTH,
                pos_embed_max_size=2 * LATENT_SIDE,
                qk_norm=qk_norm,
                dual_attention_layers=dual_attention_layers,
            )
        )
        vae = tiny_vae(
            latent_channels=latent_channels, scaling_factor=1.5305, shift_factor=0.0609,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizers[0],
        text_encoder_2=second_encoder,
        tokenizer_2=tokenizers[1],
        text_encoder_3=third_encoder if t5 else None,
        tokenizer_3=tokenizers[2] if t5 else None,
    )
    return save_quietly(pipeline, folder)
