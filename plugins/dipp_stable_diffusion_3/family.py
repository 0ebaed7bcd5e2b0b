"""How a Stable Diffusion 3 pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.original_layout.checkpoint import CheckpointLayout, Encoder
from dipp_toolkit.models.sizes import SizeRules
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_t5_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_clip_tokenizer, tiny_t5_tokenizer

CLIP_TOKENS = 77
STOCK_PLACES = 96
"""Patches a side of the transformer class's own table, where a configuration says none."""
COMFY_HEAD = 64
"""Numbers of an attention head in ComfyUI's Stable Diffusion 3."""


class StableDiffusion3Family:
    """Stable Diffusion 3: an MMDiT over CLIP-L, CLIP-G and T5 tokens side by side, trained by flow matching.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: T5 reads this many tokens; CLIP reads its own number of the same prompt.
        decodes_with: the autoencoder's shift.
        optional_encoders: T5, in whose place the network is given zeros.
        image_stream: its blocks return the prompt's tokens first and the image's second.
    """

    network_name = "transformer"
    stock_call = StockCall(scales=False, shift="dynamic", most_shift=1.16, eta=None)
    max_tokens = 256
    decodes_with = ("shift_factor",)
    optional_encoders = ("text_encoder_3",)
    image_stream = 1

    def configured(self, folder: Path) -> StableDiffusion3Family:
        """This family.

        Raises:
            RequestError: the stock pipeline cannot draw images of this size.
        """
        network = component_config(folder, self.network_name)
        size, patch = network.get("sample_size", 128), network.get("patch_size") or 2
        if not isinstance(size, int) or size % patch:
            raise RequestError(
                f"The transformer in {folder} has the sample_size {size}; Stable Diffusion 3 draws only squares, "
                f"whose side in latents is a multiple of {patch}. Expected one such number."
            )
        return self

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """No side longer than the network's table of places, of which an image has the middle."""
        most = int(network.get("pos_embed_max_size") or STOCK_PLACES) * int(network.get("patch_size") or 2)
        return replace(usual, most=most)

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        if pipeline.tokenizer_3 is None or pipeline.text_encoder_3 is None:
            return pipeline.tokenizer, pipeline.tokenizer.model_max_length
        return pipeline.tokenizer_3, min(self.max_tokens, pipeline.tokenizer_3.model_max_length)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and pooled ones `(batch, pooled)`; the empty prompt is the null."""
        hidden, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, None, device=pipeline.text_encoder.device, num_images_per_prompt=1,
            do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
        )  # fmt: skip
        return Condition(
            tuple(prompts), {"encoder_hidden_states": hidden.float(), "pooled_projections": pooled.float()}
        )

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, CLIP_TOKENS + self.max_tokens, network_config["joint_attention_dim"])
        pooled = torch.zeros(batch, network_config["pooled_projection_dim"])
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "pooled_projections": pooled})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        output: Tensor = network(
            hidden_states=x_t,
            timestep=network_time.expand(len(x_t)),
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            pooled_projections=condition.tensors["pooled_projections"],
            return_dict=False,
        )[0]
        return output

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """That of the published file with text encoders."""
        encoders = {
            "text_encoder": Encoder("text_encoders.clip_l.transformer.", "clip", projects=False),
            "text_encoder_2": Encoder("text_encoders.clip_g.transformer.", "clip"),
            "text_encoder_3": Encoder("text_encoders.t5xxl.transformer.", "t5"),
        }
        return CheckpointLayout("model.diffusion_model.", "first_stage_model.", encoders)

    def to_original_names(self, network: nn.Module) -> dict[str, Tensor]:
        """See `original_names`."""
        from .original_names import original_transformer

        return original_transformer(network)

    def comfyui(self, folder: Path) -> ComfyModel:
        """ComfyUI's `SD3`, which takes an attention head for 64 numbers and as many heads as blocks."""
        network = component_config(folder, self.network_name)
        head, heads, layers = (network.get(n) for n in ("attention_head_dim", "num_attention_heads", "num_layers"))
        return ComfyModel(
            betas=None,
            sixteen_channels=True,
            t5_length=self.max_tokens,
            latent_scale=1.5305,
            latent_shift=0.0609,
            unknown=""
            if head == COMFY_HEAD and heads == layers
            else f"it takes as many heads as blocks, of {COMFY_HEAD} numbers, and this transformer has {heads} of "
            f"{head} in {layers} blocks",
        )

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_stable_diffusion_3_twin, folder, "StableDiffusion3Pipeline", options)


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
        t5_tokens: the T5 tokenizer's `model_max_length`; the stock pipeline reads 256 of them by default.
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
