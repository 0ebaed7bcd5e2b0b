"""How a Stable Diffusion 3 pipeline encodes prompts and calls its transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.stock_call import StockCall

CLIP_TOKENS = 77


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
                f"The transformer in {folder} has the sample_size {size}; Stable Diffusion 3 draws squares alone, "
                f"whose side in latents is a multiple of {patch}. Expected one such number."
            )
        return self

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

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        from dipp_toolkit.models.tiny_pipelines import write_with

        from .twin import write_stable_diffusion_3_twin

        write_with(write_stable_diffusion_3_twin, folder, "StableDiffusion3Pipeline", options)
