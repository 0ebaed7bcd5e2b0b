"""How a Z-Image pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dipp_toolkit.diffusion.condition import Condition, row_lengths
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.sizes import SizeRules
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_qwen3_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_qwen_tokenizer

STOCK_SIDE = 1024
"""Pixels a side of an image that the stock pipeline draws where no size is named."""

STOCK_PLACES = (1024, 512, 512)
"""The transformer class's own `axes_lens`: places of tokens, rows and columns."""

PATCH = 2
"""Side of the patch of a latent that is one token, in the stock pipeline's calls."""


@dataclass(frozen=True)
class ZImageCall(StockCall):
    """Of the pipeline's own guidance s, 0 is none: its velocity is `given + s (given - empty)`, so that g = s + 1."""

    def stock_guidance(self, guidance: float) -> float:
        return guidance - 1


class ZImageFamily:
    """Z-Image: a flow-matching transformer over one stream of image and prompt tokens, with Qwen3 as text encoder.

    The transformer is given each prompt's features as long as they are, and pads them to a multiple of 32 by a token of
    its own. A condition has them in rows of `max_tokens`, zeros behind a prompt's end. Its time runs from noise to
    image, and so does what it predicts.

    Attributes:
        since: the version of diffusers that the class came with.
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: of a prompt in the chat template.
        decodes_with: the autoencoder's shift.
        optional_encoders: none.
    """

    since = "0.36"
    network_name = "transformer"
    stock_call = ZImageCall(scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True)
    max_tokens = 512
    decodes_with = ("shift_factor",)
    optional_encoders = ()

    def configured(self, folder: Path) -> ZImageFamily:
        """This family.

        Raises:
            RequestError: the transformer's patches are not those that the stock pipeline asks it for, or the installed
                diffusers lays the pipeline's steps otherwise.
        """
        from diffusers.pipelines.z_image import pipeline_z_image

        if not hasattr(pipeline_z_image, "get_default_z_image_sigmas"):
            raise RequestError(
                f"The installed diffusers {version('diffusers')} lays the steps of a ZImagePipeline down to time 0, so "
                "that the last of them changes nothing (huggingface/diffusers#13730). Run: pip install --upgrade "
                "'diffusers>=0.40'"
            )
        sides = component_config(folder, self.network_name).get("all_patch_size") or (PATCH,)
        if PATCH not in sides:
            raise RequestError(
                f"The transformer in {folder} has patches of {' and '.join(map(str, sides))} latents a side "
                f"(all_patch_size); the stock pipeline asks it for {PATCH}. Expected {PATCH} among them."
            )
        return self

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """What the tokenizer is given: each prompt as a user's message, before an answer."""
        return [
            pipeline.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            for prompt in prompts
        ]

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, self.max_tokens

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a latent, multiples of a patch: the transformer has no sample size of its own, the
        autoencoder's image size says it. Where it says none, it is what the stock pipeline draws."""
        return Autoencoding().latent_side(vae, _stock_side(vae), PATCH)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """The size, where it is not the pipeline's default."""
        return Autoencoding().size_arguments(vae, _stock_side(vae), PATCH)

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """Whole patches, and no more of them than the transformer's rotary embedding has places."""
        lengths = network.get("axes_lens") or STOCK_PLACES
        return replace(usual, multiple=math.lcm(usual.multiple, PATCH), most=PATCH * min(lengths[1:]))

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Features `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null condition."""
        features, _ = pipeline.encode_prompt(
            list(prompts),  # it writes into the list
            device=pipeline.text_encoder.device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
        )  # fmt: skip
        width = features[0].shape[-1]
        longest = features[0].new_zeros(self.max_tokens, width)
        rows = pad_sequence([*features, longest], batch_first=True)[:-1]
        lengths = torch.tensor([len(row) for row in features], device=rows.device)
        mask = torch.arange(self.max_tokens, device=rows.device) < lengths[:, None]
        return Condition(
            tuple(prompts), {"encoder_hidden_states": rows.float(), "encoder_attention_mask": mask.to(torch.int64)}
        )

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder: prompts as long as can be."""
        features = torch.zeros(batch, self.max_tokens, network_config["cap_feat_dim"])
        mask = torch.ones(batch, self.max_tokens, dtype=torch.int64)
        return Condition(("",) * batch, {"encoder_hidden_states": features, "encoder_attention_mask": mask})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        features, mask = condition.tensors["encoder_hidden_states"], condition.tensors["encoder_attention_mask"]
        output: list[Tensor] = network(
            list(x_t.unsqueeze(2)),  # each an image of one frame
            ((1000 - network_time) / 1000).expand(len(x_t)),
            [row[:length] for row, length in zip(features, row_lengths(mask), strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(output).squeeze(2)

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_z_image_twin, folder, "ZImagePipeline", options)


TEXT_WIDTH = 16
HEADS = 2
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""


def _stock_side(vae: Mapping[str, Any]) -> int:
    return STOCK_SIDE // Autoencoding().pixels_per_latent(vae)


def write_z_image_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    latent_channels: int = 16,
    shift: float = 6.0,
    dynamic_shifting: bool = False,
) -> Path:
    """Save a random `ZImagePipeline` with latents `(16, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        latent_channels: of the autoencoder and the transformer.
        shift: of the schedule: 6 as Z-Image's, or 3 as Z-Image-Turbo's.
        dynamic_shifting: whether the schedule depends on the image's size instead.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    check_prediction(prediction_type, ("velocity",), "ZImagePipeline")
    with drawn_from(seed):
        tokenizer = tiny_qwen_tokenizer()
        text_encoder = tiny_qwen3_encoder(tokenizer, width=TEXT_WIDTH)
        transformer = finished(
            ZImageTransformer2DModel(
                in_channels=latent_channels,
                dim=HEADS * sum(AXES),
                n_layers=2,
                n_refiner_layers=1,
                n_heads=HEADS,
                n_kv_heads=HEADS,
                cap_feat_dim=TEXT_WIDTH,
                axes_dims=list(AXES),
                axes_lens=[1024, 64, 64],
            )
        )
        vae = tiny_vae(
            latent_channels=latent_channels, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic_shifting)
    return save_quietly(ZImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer), folder)
