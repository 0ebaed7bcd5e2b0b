"""Tiny random pipelines of Flux.2's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    VAE_CHANNELS,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_qwen3_encoder,
)
from dipp_toolkit.models.tiny_tokenizers import QWEN_TOKENS, tiny_qwen_tokenizer

from .tiny_processor import IMAGE, MISTRAL_TOKENS, tiny_mistral_processor

WIDTH = 16
AXES = (4, 4, 4, 4)
"""How the width of an attention head is shared between the four rotary positions."""

PATCH = 2
QWEN_LAYERS = 28
"""The pipeline reads the ninth, eighteenth and twenty-seventh of the language model's layers."""

MISTRAL_LAYERS = 31
"""The pipeline reads the tenth, twentieth and thirtieth."""

LAYERS_READ = 3
IMAGE_SIDE = LATENT_SIDE * PATCH * 2 ** (len(VAE_CHANNELS) - 1)


def write_flux_2_klein_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    is_distilled: bool = False,
    max_tokens: int = QWEN_TOKENS,
) -> Path:
    """Save a random `Flux2KleinPipeline` with latents `(16, 8, 8)` and images `(3, 32, 32)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        is_distilled: whether its pipeline makes one pass, whatever guidance it is asked for.
        max_tokens: the tokenizer's `model_max_length`; the stock pipeline reads 512 of them by default.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import Flux2KleinPipeline

    check_prediction(prediction_type, ("velocity",), "Flux2KleinPipeline")
    with drawn_from(seed):
        tokenizer = tiny_qwen_tokenizer(max_tokens)
        pipeline = Flux2KleinPipeline(
            scheduler=_scheduler(),
            vae=_vae(),
            text_encoder=tiny_qwen3_encoder(tokenizer, width=WIDTH, layers=QWEN_LAYERS, causal=True),
            tokenizer=tokenizer,
            transformer=_transformer(LAYERS_READ * WIDTH, guidance_embeds=False),
            is_distilled=is_distilled,
        )
    return save_quietly(pipeline, folder)


def write_flux_2_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    guidance_embeds: bool = True,
    max_tokens: int = MISTRAL_TOKENS,
) -> Path:
    """Save a random `Flux2Pipeline` with latents `(16, 8, 8)` and images `(3, 32, 32)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        guidance_embeds: whether the transformer takes a guidance scale as an input.
        max_tokens: the tokenizer's `model_max_length`; the stock pipeline reads 512 of them by default.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import Flux2Pipeline

    check_prediction(prediction_type, ("velocity",), "Flux2Pipeline")
    with drawn_from(seed):
        processor = tiny_mistral_processor(max_tokens)
        pipeline = Flux2Pipeline(
            scheduler=_scheduler(),
            vae=_vae(),
            text_encoder=_mistral3(processor.tokenizer),
            tokenizer=processor,
            transformer=_transformer(LAYERS_READ * WIDTH, guidance_embeds=guidance_embeds),
        )
    return save_quietly(pipeline, folder)


def _transformer(joint_attention_dim: int, *, guidance_embeds: bool) -> Any:
    from diffusers import Flux2Transformer2DModel

    return finished(
        Flux2Transformer2DModel(
            in_channels=4 * PATCH**2,
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=2,
            attention_head_dim=sum(AXES),
            axes_dims_rope=AXES,
            joint_attention_dim=joint_attention_dim,
            guidance_embeds=guidance_embeds,
        )
    )


@torch.no_grad()
def _vae() -> Any:
    """An autoencoder of 4 channels, whose patches have 16, with statistics that change a latent."""
    from diffusers import AutoencoderKLFlux2

    levels = len(VAE_CHANNELS)
    vae = finished(
        AutoencoderKLFlux2(
            block_out_channels=VAE_CHANNELS,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=IMAGE_SIDE,
        )
    )
    vae.bn.running_mean.normal_(std=0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def _mistral3(tokenizer: Any) -> Any:
    """A `Mistral3ForConditionalGeneration`, of as many layers as the pipeline reads; no image goes through its vision
    tower."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 2, "head_dim": 8}
    config = Mistral3Config(
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=False,
        text_config={
            "model_type": "mistral",
            **sizes,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": MISTRAL_LAYERS,
            "num_key_value_heads": 1,
            "max_position_embeddings": MISTRAL_TOKENS,
            "sliding_window": None,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={"model_type": "pixtral", **sizes, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
    )
    return finished(Mistral3ForConditionalGeneration(config))


def _scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
