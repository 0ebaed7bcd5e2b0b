"""How a PixArt-alpha pipeline encodes prompts and calls its transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dipp_toolkit.condition import Condition
from dipp_toolkit.stock_call import StockCall

BINNED = {32: 256, 64: 512, 128: 1024}
"""Pixels of the square that the stock pipeline rounds a size to, by the transformer's `sample_size`."""


class PixArtFamily:
    """PixArt-alpha: a DiT with cross attention to T5 embeddings.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: captions are padded and cut to this many tokens (PixArt-alpha's own number is 120), or to the
            tokenizer's limit where that is lower.
        decodes_with: nothing but the autoencoder's scaling factor.
        optional_encoders: none.
    """

    network_name = "transformer"
    stock_call = StockCall(begins_at_zero=True, single_step_output=1)
    max_tokens = 120
    decodes_with: tuple[str, ...] = ()
    optional_encoders: tuple[str, ...] = ()

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, min(self.max_tokens, pipeline.tokenizer.model_max_length)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt is taken as it is, and the size too where it is none that the pipeline rounds to."""
        channels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or ()
        pixels = network["sample_size"] * 2 ** (len(channels) - 1)
        binned = BINNED.get(network["sample_size"]) == pixels
        return {"clean_caption": False} if binned else {"use_resolution_binning": False, "clean_caption": False}

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null condition.

        The transformer gives masked tokens an attention of exactly 0, whatever stands there; here it is zeros.
        """
        _, length = self.token_limit(pipeline)
        device = pipeline.text_encoder.device
        inputs = pipeline.tokenizer(
            [prompt.lower().strip() for prompt in prompts],
            padding="max_length", max_length=length, truncation=True, return_tensors="pt",
        ).to(device)  # fmt: skip
        hidden = pipeline.text_encoder(inputs.input_ids, attention_mask=inputs.attention_mask)[0]
        hidden = hidden.masked_fill(inputs.attention_mask[..., None] == 0, 0)
        return Condition(
            tuple(prompts), {"encoder_hidden_states": hidden.float(), "encoder_attention_mask": inputs.attention_mask}
        )

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, self.max_tokens, network_config["caption_channels"])
        mask = torch.ones(batch, self.max_tokens, dtype=torch.int64)
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "encoder_attention_mask": mask})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if cast(Any, network).use_additional_conditions:
            height, width = (side * 8 for side in x_t.shape[-2:])
            sizes["resolution"] = torch.tensor([[height, width]], device=x_t.device).expand(len(x_t), -1).to(x_t)
            sizes["aspect_ratio"] = torch.tensor([[height / width]], device=x_t.device).expand(len(x_t), -1).to(x_t)
        output = network(
            x_t,
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            encoder_attention_mask=condition.tensors["encoder_attention_mask"],
            timestep=network_time.expand(len(x_t)),
            added_cond_kwargs=sizes,
            return_dict=False,
        )[0]
        return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * x_t.shape[1] else output

    def from_published_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """See `published_names`."""
        from .published_names import from_published_names

        return from_published_names(tensors)

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.twins`."""
        from dipp_toolkit.twins import write_with

        from .twin import write_pixart_twin

        write_with(write_pixart_twin, folder, "PixArtAlphaPipeline", options)
