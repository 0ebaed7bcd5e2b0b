"""A PixArt-alpha pipeline of stock classes with random weights: everything real but the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dipp_toolkit.diffusion.predictions import Prediction

WORDS = ("a", "red", "green", "blue", "cat", "dog", "tree", "on", "the", "sea")
PROMPTS = ("a red cat", "the blue sea", "a green tree", "a dog on the tree")
LATENT_SHAPE = (4, 8, 8)
IMAGE_SHAPE = (3, 16, 16)
TOKENS = 6


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `WORDS`."""
    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TOKENS
    )


def tiny_pipeline(
    folder: Path, *, prediction_type: Prediction = "sample", seed: int = 0, beta_schedule: str = "squaredcos_cap_v2"
) -> Path:
    """Save a random pipeline of some ten thousand parameters to `folder`, in the Hugging Face layout.

    Args:
        folder: created where missing.
        prediction_type: what its network is taken to predict.
        seed: of the weights.
        beta_schedule: a diffusers schedule's name.

    Returns:
        `folder`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                pad_token_id=0,
                eos_token_id=1,
                use_cache=False,
                is_encoder_decoder=False,
            )
        )
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            in_channels=4,
            out_channels=4,
            sample_size=8,
            patch_size=2,
            cross_attention_dim=16,
            caption_channels=16,
            norm_type="ada_norm_single",
            use_additional_conditions=False,
        )
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
            scaling_factor=0.8,
        )
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    PixArtAlphaPipeline(tokenizer, text_encoder.eval(), vae.eval(), transformer.eval(), scheduler).save_pretrained(
        folder
    )
    return folder


def plain_diffusers(folder: Path, latents: Tensor, steps: int, guidance: float) -> Tensor:
    """What somebody without this toolkit gets for `PROMPTS`: the stock pipeline's final latents."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "latent"}
    if "PixArt" in type(pipeline).__name__:
        call |= {"use_resolution_binning": False}
    return pipeline(list(PROMPTS), latents=latents, **call).images
