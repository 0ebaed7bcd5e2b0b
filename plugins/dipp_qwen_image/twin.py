"""A tiny random Qwen-Image pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipp_toolkit.models.tiny_pipelines import IMAGE_SIDE, check_prediction, drawn_from, finished, save_quietly
from dipp_toolkit.models.tiny_tokenizers import QWEN_TOKENS, WORDS, tiny_qwen_tokenizer

from .guidance import PATCH

WIDTH, HEAD_WIDTH = 16, 8
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""

CHANNELS = 4
TEMPLATE_WORDS = (
    "system", "Describe", "image", "by", "detailing", "color", "shape", "size", "texture", "quantity", "text",
    "spatial", "relationships", "objects", "background", "user", "assistant",
)  # fmt: skip
"""Of the question that the pipeline puts a prompt into."""


def write_qwen_image_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    dynamic_shifting: bool = True,
    shift_terminal: float | None = 0.02,
    max_tokens: int = QWEN_TOKENS,
) -> Path:
    """Save a random `QwenImagePipeline` with latents `(4, 8, 8)`, packed `(16, 16)`, and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        dynamic_shifting: whether the schedule depends on the image's size, or has no shift at all.
        shift_terminal: the last time of a step, to which all are stretched; None for none.
        max_tokens: the tokenizer's `model_max_length`; the stock pipeline reads 512 of a prompt by default.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel

    check_prediction(prediction_type, ("velocity",), "QwenImagePipeline")
    with drawn_from(seed):
        tokenizer = tiny_qwen_tokenizer(max_tokens, words=(*WORDS, *TEMPLATE_WORDS))
        pipeline = QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=dynamic_shifting,
                base_shift=0.5,
                max_shift=0.9,
                base_image_seq_len=256,
                max_image_seq_len=8192,
                shift_terminal=shift_terminal,
            ),
            vae=_vae(),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=finished(
                QwenImageTransformer2DModel(
                    in_channels=CHANNELS * PATCH**2,
                    out_channels=CHANNELS,
                    num_layers=2,
                    num_attention_heads=2,
                    attention_head_dim=sum(AXES),
                    axes_dims_rope=AXES,
                    joint_attention_dim=WIDTH,
                )
            ),
        )
    return save_quietly(pipeline, folder)


def _vae() -> Any:
    """An autoencoder of two levels, the second of which halves frames as well, that says its image size."""
    from diffusers import AutoencoderKLQwenImage

    vae = finished(
        AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=CHANNELS,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[True],
            latents_mean=[-0.7, 0.1, 0.9, -0.2],
            latents_std=[2.8, 1.4, 1.1, 2.1],
        )
    )
    vae.register_to_config(sample_size=IMAGE_SIDE)
    return vae


def _text_encoder(tokenizer: Any) -> Any:
    """A `Qwen2_5_VLForConditionalGeneration`; no image goes through its vision tower."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128_000,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0],
        },
    )
    return finished(Qwen2_5_VLForConditionalGeneration(config))
