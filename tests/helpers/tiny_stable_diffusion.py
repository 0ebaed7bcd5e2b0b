"""Stable Diffusion pipelines of stock classes with random weights: everything real but the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dipp_toolkit.diffusion.predictions import Prediction
from tiny import LATENT_SHAPE, TOKENS, tiny_tokenizer

TEXT_WIDTH = 16


def _text_config(vocabulary_size: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary_size, hidden_size=TEXT_WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=TOKENS, projection_dim=TEXT_WIDTH, pad_token_id=0,
        eos_token_id=1, bos_token_id=None,
    )  # fmt: skip


def _unet(**special: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[-1], block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, **special,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, scaling_factor=0.5,
    )  # fmt: skip


def _scheduler(prediction_type: Prediction) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip


def tiny_stable_diffusion(folder: Path, *, prediction_type: Prediction = "epsilon") -> Path:
    """Save a random Stable Diffusion 1 pipeline to `folder`, in the Hugging Face layout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = tiny_tokenizer()
        StableDiffusionPipeline(
            _vae().eval(), CLIPTextModel(_text_config(len(tokenizer))).eval(), tokenizer,
            _unet(cross_attention_dim=TEXT_WIDTH).eval(), _scheduler(prediction_type), None, None,
            requires_safety_checker=False,
        ).save_pretrained(folder)  # fmt: skip
    return folder


def tiny_stable_diffusion_xl(folder: Path, *, prediction_type: Prediction = "epsilon") -> Path:
    """Save a random Stable Diffusion XL pipeline to `folder`, in the Hugging Face layout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = tiny_tokenizer()
        config = _text_config(len(tokenizer))
        unet = _unet(
            cross_attention_dim=2 * TEXT_WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        )  # fmt: skip
        StableDiffusionXLPipeline(
            _vae().eval(), CLIPTextModel(config).eval(), CLIPTextModelWithProjection(config).eval(), tokenizer,
            tokenizer, unet.eval(), _scheduler(prediction_type), force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        ).save_pretrained(folder)  # fmt: skip
    return folder
