"""How a Chroma pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.stock_call import StockCall, pack, unpack
from dipp_toolkit.models.tiny_pipelines import (
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_t5_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_t5_tokenizer
from dipp_toolkit.utils.host_waits import awaited

STOCK_SIDE = 128
"""Side of a latent that the stock pipeline draws where no size is named."""

PATCH = 2
"""The pipeline packs patches of two by two latents into one token."""


class ChromaFamily:
    """Chroma: Flux's MMDiT with T5 alone, a small network in the place of its modulations, and guidance of two passes.

    A prompt's tokens and the first one behind its end are marked in a mask. The stock pipeline hands it on as numbers,
    1 and 0, which attention adds to its logits: two tokens that are marked see each other e times as much, and the
    padding is not left out (huggingface/diffusers#12116). So embeddings keep their padding, and the mask goes through
    as the installed pipeline makes it.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: what `max_sequence_length` is where it is not given.
        decodes_with: the autoencoder's shift.
        optional_encoders: none.
        image_stream: its joint blocks return the prompt's tokens first and the image's second.
        faulty_checkpointing: the network's own drops the mask in its single blocks (diffusers 0.35 to 0.42), so that
            what is trained would not be what is drawn.
    """

    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = StockCall(
        scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True, patch=PATCH
    )
    max_tokens: ClassVar[int] = 512
    decodes_with: ClassVar[tuple[str, ...]] = ("shift_factor",)
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    image_stream: ClassVar[int] = 1
    faulty_checkpointing: ClassVar[bool] = True

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, self.max_tokens

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a latent, even numbers: the autoencoder's image size says it, and where it says none,
        it is what the stock pipeline draws."""
        return Autoencoding().latent_side(vae, STOCK_SIDE, PATCH)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, int]:
        """The size, where it is not the pipeline's default of 128 latents a side."""
        return Autoencoding().size_arguments(vae, STOCK_SIDE, PATCH)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null."""
        hidden, _, mask, *_ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
        )
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden.float(), "attention_mask": mask})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, self.max_tokens, network_config["joint_attention_dim"])
        mask = torch.ones(batch, self.max_tokens)
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "attention_mask": mask})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        batch, device = len(x_t), x_t.device
        rows, columns = (side // PATCH for side in x_t.shape[-2:])
        tokens, mask = condition.tensors["encoder_hidden_states"], condition.tensors["attention_mask"]
        with awaited(device):  # the network makes the guidance that it embeds, 0, on the host
            output: Tensor = network(
                hidden_states=pack(x_t, PATCH),
                timestep=network_time.expand(batch).to(x_t.dtype) / 1000,
                encoder_hidden_states=tokens,
                txt_ids=torch.zeros(tokens.shape[1], 3, device=device),
                img_ids=_places(rows, columns, device),
                attention_mask=torch.cat([mask, mask.new_ones(batch, rows * columns)], dim=1),
                return_dict=False,
            )[0]
        return unpack(output, x_t.shape, PATCH)

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_chroma_twin, folder, "ChromaPipeline", options)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Row and column of every token, `(rows * columns, 3)`; the first coordinate is unused."""
    sides = (torch.arange(side, device=device, dtype=torch.float32) for side in (1, rows, columns))
    return torch.cartesian_prod(*sides)


TEXT_WIDTH = 32
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""


def write_chroma_twin(
    folder: Path, *, seed: int = 0, prediction_type: str | None = None, latent_channels: int = 16
) -> Path:
    """Save a random `ChromaPipeline` with latents `(16, 8, 8)`, packed `(16, 64)`, and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        latent_channels: of the autoencoder; a token of the transformer has four times as many.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    check_prediction(prediction_type, ("velocity",), "ChromaPipeline")
    with drawn_from(seed):
        tokenizer = tiny_t5_tokenizer(ChromaFamily.max_tokens)
        text_encoder = tiny_t5_encoder(tokenizer, width=TEXT_WIDTH)
        transformer = finished(
            ChromaTransformer2DModel(
                in_channels=latent_channels * PATCH**2,
                num_layers=1,
                num_single_layers=1,
                num_attention_heads=2,
                attention_head_dim=sum(AXES),
                axes_dims_rope=AXES,
                joint_attention_dim=TEXT_WIDTH,
                approximator_num_channels=16,
                approximator_hidden_dim=16,
                approximator_layers=1,
            )
        )
        vae = tiny_vae(
            latent_channels=latent_channels, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return save_quietly(ChromaPipeline(scheduler, vae, text_encoder, tokenizer, transformer), folder)
