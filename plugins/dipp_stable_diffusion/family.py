"""How Stable Diffusion pipelines encode prompts and call their UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dipp_toolkit.condition import Condition

CLIP_TOKENS = 77


class StableDiffusionFamily:
    """Stable Diffusion 1 and 2: a UNet with cross attention to CLIP's token embeddings.

    Attributes:
        network_name: the denoising component.
        added: tensors of the condition that the UNet takes besides the token embeddings.
    """

    network_name = "unet"
    added: tuple[str, ...] = ()

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, pipeline.tokenizer.model_max_length

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)`; the empty prompt is the null condition."""
        hidden, _ = pipeline.encode_prompt(
            list(prompts), pipeline.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden.float()})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, CLIP_TOKENS, network_config["cross_attention_dim"])
        return Condition(("",) * batch, {"encoder_hidden_states": tokens})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        output: Tensor = network(
            x_t,
            network_time.expand(len(x_t)),
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            added_cond_kwargs={name: condition.tensors[name] for name in self.added},
            return_dict=False,
        )[0]
        return output

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.twins`."""
        from dipp_toolkit.twins import write_with

        from .twin import write_stable_diffusion_twin

        write_with(write_stable_diffusion_twin, folder, "StableDiffusionPipeline", options)


class StableDiffusionXLFamily(StableDiffusionFamily):
    """Stable Diffusion XL: two text encoders side by side, the second one's pooled embedding, and the image's sizes.

    The sizes given are those of the resolution the network was trained at, with no crop.
    """

    added = ("text_embeds", "time_ids")

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and pooled ones `(batch, pooled)`.

        Where the pipeline says `force_zeros_for_empty_prompt`, as the published SDXL does, the empty prompt is encoded
        as zeros: that is the null condition its guidance uses.
        """
        device = pipeline.text_encoder_2.device
        hidden, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if pipeline.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([not prompt for prompt in prompts], device=device)
            hidden, pooled = hidden.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden.float(), "text_embeds": pooled.float()})

    def at_size(self, condition: Condition, size: tuple[int, int]) -> Condition:
        """With `time_ids` `(batch, 6)`: the original height and width, the crop's corner, the height and width."""
        hidden = condition.tensors["encoder_hidden_states"]
        sizes = torch.tensor([*size, 0, 0, *size], device=hidden.device, dtype=torch.float32)
        return Condition(condition.prompts, {**condition.tensors, "time_ids": sizes.expand(len(hidden), -1)})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        sizes = 6 * network_config["addition_time_embed_dim"]
        pooled = torch.zeros(batch, network_config["projection_class_embeddings_input_dim"] - sizes)
        tensors = super().blank(network_config, batch).tensors
        return Condition(("",) * batch, {**tensors, "text_embeds": pooled, "time_ids": torch.zeros(batch, 6)})

    def write_twin(self, folder: Path, **options: Any) -> None:
        from dipp_toolkit.twins import write_with

        from .twin import write_stable_diffusion_xl_twin

        write_with(write_stable_diffusion_xl_twin, folder, "StableDiffusionXLPipeline", options)
