"""How a Qwen-Image pipeline encodes prompts and calls its transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.stock_call import StockCall, pack, unpack
from dipp_toolkit.models.tiny_pipelines import write_with

from .autoencoding import QwenImageAutoencoding
from .guidance import PATCH, QwenImageStockCall

STOCK_SIDE = 128
"""Side of a latent that the stock pipeline draws where no size is named."""

AT_A_TIME = 4
"""Prompts that go through the language model at once: it makes logits of every token that nobody reads."""


class QwenImageFamily:
    """Qwen-Image: a flow-matching transformer over latents packed two by two, with prompts described by Qwen2.5-VL.

    A prompt is put into a question to the language model, and what it makes of the words before the prompt is dropped.
    Embeddings of shorter prompts are padded with zeros, which the transformer's attention leaves out.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        autoencoding: latents are one frame of a video's.
        max_tokens: of a prompt and what the pipeline puts behind it, what `max_sequence_length` is where it is not
            given.
        optional_encoders: none.
        image_stream: its blocks return the prompt's tokens first and the image's second.
        since: the diffusers whose transformer leaves the padding out; earlier ones have the class.
    """

    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = QwenImageStockCall(
        scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True, patch=PATCH
    )
    autoencoding: ClassVar[Autoencoding] = QwenImageAutoencoding()
    max_tokens: ClassVar[int] = 512
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    image_stream: ClassVar[int] = 1
    since: ClassVar[str] = "0.37"

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        """With what stands before a prompt, which is read and dropped."""
        limit = self.max_tokens + pipeline.prompt_template_encode_start_idx
        return pipeline.tokenizer, min(limit, pipeline.tokenizer.model_max_length)

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """The prompts in the pipeline's question."""
        return [pipeline.prompt_template_encode.format(prompt) for prompt in prompts]

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a latent, even numbers.

        No configuration of a published pipeline says it: it is what the stock pipeline draws, unless the autoencoder's
        has a `sample_size`, in pixels, which its class passes over.
        """
        return self.autoencoding.latent_side(vae, STOCK_SIDE, PATCH)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, int]:
        """The size, where it is not the pipeline's own."""
        return self.autoencoding.size_arguments(vae, STOCK_SIDE, PATCH)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null."""
        parts = [
            self._padded(
                *pipeline.encode_prompt(
                    list(prompts[start : start + AT_A_TIME]),
                    device=pipeline.text_encoder.device,
                    max_sequence_length=self.max_tokens,
                )
            )
            for start in range(0, len(prompts), AT_A_TIME)
        ]
        hidden, mask = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden, "encoder_hidden_states_mask": mask})

    def _padded(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """To `max_tokens`; the pipeline pads to the longest prompt, and gives no mask where all are as long."""
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
        missing = self.max_tokens - hidden.shape[1]
        return F.pad(hidden.float(), (0, 0, 0, missing)), F.pad(mask.long(), (0, missing))

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, self.max_tokens, network_config["joint_attention_dim"])
        mask = torch.ones(batch, self.max_tokens, dtype=torch.int64)
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "encoder_hidden_states_mask": mask})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        batch = len(x_t)
        rows, columns = (side // PATCH for side in x_t.shape[-2:])
        output: Tensor = network(
            hidden_states=pack(x_t, PATCH),
            timestep=network_time.expand(batch).to(x_t.dtype) / 1000,
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            encoder_hidden_states_mask=condition.tensors["encoder_hidden_states_mask"].bool(),
            img_shapes=[[(1, rows, columns)]] * batch,
            return_dict=False,
        )[0]
        return unpack(output, x_t.shape, PATCH)

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        from .twin import write_qwen_image_twin

        write_with(write_qwen_image_twin, folder, "QwenImagePipeline", options)
