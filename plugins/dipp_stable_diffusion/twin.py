"""Tiny twins of the published Stable Diffusion 1 and XL: their component classes and settings, not their size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_vae,
)
from dipp_toolkit.models.tiny_tokenizers import CLIP_TOKENS, tiny_clip_tokenizer

CHANNELS = 4
WIDTH, SECOND_WIDTH = 16, 24
"""Of the text encoders. They differ, so that no code can confuse one with the other."""

SIZE_WIDTH = 8
"""Of the embedding of each of SDXL's six numbers about the image's size."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _unet(**special: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return finished(
        UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            **special,
        )
    )


def write_stable_diffusion_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = CLIP_TOKENS,
    time_cond_proj_dim: int | None = None,
) -> Path:
    """Save a random `StableDiffusionPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` unless said.
        max_tokens: the tokenizer's `model_max_length`.
        time_cond_proj_dim: width of a guidance embedding that the UNet takes, as a latent consistency model's does.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction"), "StableDiffusionPipeline")
    with drawn_from(seed):
        tokenizer = tiny_clip_tokenizer(max_tokens)
        text_encoder = tiny_clip_encoder(tokenizer, width=WIDTH)
        unet = _unet(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=WIDTH,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        vae = tiny_vae(latent_channels=CHANNELS, scaling_factor=0.18215)
    scheduler = PNDMScheduler(
        **BETAS, skip_prk_steps=True, set_alpha_to_one=False, prediction_type=prediction_type or "epsilon"
    )
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    return save_quietly(pipeline, folder)


def write_stable_diffusion_xl_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = CLIP_TOKENS,
    time_cond_proj_dim: int | None = None,
    first_encoder: bool = True,
) -> Path:
    """Save a random `StableDiffusionXLPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Its second tokenizer pads with `!`, as published.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` unless said.
        max_tokens: the tokenizers' `model_max_length`.
        time_cond_proj_dim: width of a guidance embedding that the UNet takes, as a latent consistency model's does.
        first_encoder: whether it has the first of its text encoders, without which the stock pipeline draws too.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction", "sample"), "StableDiffusionXLPipeline")
    with drawn_from(seed):
        tokenizer, second_tokenizer = tiny_clip_tokenizer(max_tokens), tiny_clip_tokenizer(max_tokens, pad_token="!")
        text_encoder = tiny_clip_encoder(tokenizer, width=WIDTH)
        second_encoder = tiny_clip_encoder(second_tokenizer, width=SECOND_WIDTH, projected=True)
        unet = _unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(1, 2),
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            cross_attention_dim=(WIDTH if first_encoder else 0) + SECOND_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=SIZE_WIDTH,
            projection_class_embeddings_input_dim=SECOND_WIDTH + 6 * SIZE_WIDTH,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        vae = tiny_vae(latent_channels=CHANNELS, scaling_factor=0.13025)
    scheduler = EulerDiscreteScheduler(
        **BETAS, timestep_spacing="leading", prediction_type=prediction_type or "epsilon"
    )
    first = (text_encoder, tokenizer) if first_encoder else (None, None)
    pipeline = StableDiffusionXLPipeline(
        vae, first[0], second_encoder, first[1], second_tokenizer, unet, scheduler,
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    return save_quietly(pipeline, folder)
