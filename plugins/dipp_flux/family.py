"""How a Flux pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.original_layout.checkpoint import CheckpointLayout, Encoder
from dipp_toolkit.models.stock_call import StockCall, pack, unpack
from dipp_toolkit.models.tiny_pipelines import (
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_t5_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import CLIP_TOKENS, tiny_clip_tokenizer, tiny_t5_tokenizer

STOCK_SIDE = 128
"""Side of a latent that the stock pipeline draws where no size is named."""

PATCH = 2
"""The pipeline packs patches of two by two latents into one token."""

STOCK_TOKENS = 512
"""T5 tokens of the stock pipeline where `max_sequence_length` is not given."""

COMFY_HEADS = (24, 128)
"""Attention heads of the transformer that ComfyUI knows, and numbers of each."""

STOCK_GUIDANCE = 3.5
"""What the stock pipeline tells a transformer that takes guidance as an input, where `guidance_scale` is not given."""

TOKENS_WITHOUT_GUIDANCE = 256
"""FLUX.1-schnell's own number: it was distilled with no more, and its card and diffusers' pages call it a limit. No
file of a pipeline says it. What tells schnell from dev is that its transformer takes no guidance."""


@dataclass(frozen=True)
class FluxCall(StockCall):
    """Flux's loop, in which a second pass is asked for by `true_cfg_scale` and a negative prompt; its `guidance_scale`
    is an input of the network."""

    def guidance_arguments(self, guidance: float, prompts: int) -> dict[str, Any]:
        if guidance > 1:
            return {"true_cfg_scale": guidance, "negative_prompt": [""] * prompts}
        return super().guidance_arguments(guidance, prompts)


@dataclass(frozen=True)
class FluxFamily:
    """Flux: a flow-matching MMDiT over latents packed two by two, with T5 tokens and CLIP's pooled embedding.

    FLUX.1-dev has guidance distilled into an input of the network, which is told `embedded_guidance`, and the exported
    pipeline gives the generator's own image with `guidance_scale` of that value.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: T5 reads this many tokens: 512, or 256 where the transformer takes no guidance, as schnell's.
        embedded_guidance: the network's guidance input, the stock pipeline's 3.5 unless a run says otherwise; None for
            a transformer without one, as schnell's.
        decodes_with: the autoencoder's shift.
        optional_encoders: none.
        image_stream: its blocks, joint and single ones, return the prompt's tokens first and the image's second.
    """

    max_tokens: int = STOCK_TOKENS
    embedded_guidance: float | None = STOCK_GUIDANCE
    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = FluxCall(
        scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True, patch=PATCH
    )
    decodes_with: ClassVar[tuple[str, ...]] = ("shift_factor",)
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    image_stream: ClassVar[int] = 1

    def configured(self, folder: Path) -> FluxFamily:
        """With as many tokens as the folder's transformer was made for, and guidance only where it takes some."""
        network = component_config(folder, self.network_name)
        if not network:
            return self
        guidance = self.embedded_guidance if network.get("guidance_embeds") else None
        return replace(self, max_tokens=_tokens(network), embedded_guidance=guidance)

    def encoding_for(self, other: FluxFamily) -> FluxFamily:
        """This family with as many tokens as the networks of both were made for."""
        return replace(self, max_tokens=min(self.max_tokens, other.max_tokens))

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer_2, min(self.max_tokens, pipeline.tokenizer_2.model_max_length)

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a latent, even numbers: the transformer has no sample size of its own, the autoencoder's
        image size says it. Where it says none, as a tiny autoencoder, it is what the stock pipeline draws."""
        return Autoencoding().latent_side(vae, STOCK_SIDE, PATCH)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """The size, where it is not the pipeline's default of 128 latents a side, and T5's number of tokens."""
        tokens = {} if _tokens(network) == STOCK_TOKENS else {"max_sequence_length": _tokens(network)}
        return {**Autoencoding().size_arguments(vae, STOCK_SIDE, PATCH), **tokens}

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and pooled ones `(batch, pooled)`; the empty prompt is the null."""
        hidden, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, device=pipeline.text_encoder.device, max_sequence_length=self.max_tokens
        )
        return Condition(
            tuple(prompts), {"encoder_hidden_states": hidden.float(), "pooled_projections": pooled.float()}
        )

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, _tokens(network_config), network_config["joint_attention_dim"])
        pooled = torch.zeros(batch, network_config["pooled_projection_dim"])
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "pooled_projections": pooled})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        batch = len(x_t)
        rows, columns = (side // 2 for side in x_t.shape[-2:])
        tokens = condition.tensors["encoder_hidden_states"]
        guided = cast(Any, network).config.guidance_embeds
        guidance = STOCK_GUIDANCE if self.embedded_guidance is None else self.embedded_guidance
        output: Tensor = network(
            hidden_states=pack(x_t),
            timestep=network_time.expand(batch).to(x_t.dtype) / 1000,
            guidance=torch.full((batch,), guidance, device=x_t.device) if guided else None,
            pooled_projections=condition.tensors["pooled_projections"],
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=x_t.device),
            img_ids=_places(rows, columns, x_t.device),
            return_dict=False,
        )[0]
        return unpack(output, x_t.shape)

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """That of files with everything in them; the published one is the transformer's alone, without a prefix."""
        encoders = {
            "text_encoder": Encoder("text_encoders.clip_l.transformer.", "clip"),
            "text_encoder_2": Encoder("text_encoders.t5xxl.transformer.", "t5"),
        }
        return CheckpointLayout("model.diffusion_model.", "vae.", encoders)

    def to_original_names(self, network: nn.Module) -> dict[str, Tensor]:
        """See `original_names`."""
        from .original_names import original_transformer

        return original_transformer(network)

    def comfyui(self, folder: Path) -> ComfyModel:
        """ComfyUI's `Flux` of 24 heads of 128 numbers, whose T5 reads 256 tokens at least."""
        network = component_config(folder, self.network_name)
        heads, head = network.get("num_attention_heads", 24), network.get("attention_head_dim", 128)
        return ComfyModel(
            betas=None,
            sixteen_channels=True,
            t5_length=None if self.max_tokens == TOKENS_WITHOUT_GUIDANCE else self.max_tokens,
            guidance=self.embedded_guidance,
            latent_scale=0.3611,
            latent_shift=0.1159,
            unknown=""
            if (heads, head) == COMFY_HEADS
            else f"it knows 24 heads of 128 numbers, and this transformer has {heads} of {head}",
        )

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_flux_twin, folder, "FluxPipeline", options)


def _tokens(network: Mapping[str, Any]) -> int:
    return STOCK_TOKENS if network.get("guidance_embeds") else TOKENS_WITHOUT_GUIDANCE


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Row and column of every token, `(rows * columns, 3)`; the first coordinate is unused."""
    grid = torch.zeros(rows, columns, 3, device=device)
    grid[..., 1] += torch.arange(rows, device=device)[:, None]
    grid[..., 2] += torch.arange(columns, device=device)[None, :]
    return grid.reshape(-1, 3)


WIDTH, SECOND_WIDTH = 16, 32
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""

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
        t5_tokens: the T5 tokenizer's `model_max_length`; the stock pipeline reads 512 of them by default.

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
