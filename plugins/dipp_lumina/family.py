"""How a Lumina-Image 2.0 pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dipp_toolkit.diffusion.condition import Condition, row_lengths
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.sizes import SizeRules
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_gemma2_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import WORDS, tiny_gemma_tokenizer
from dipp_toolkit.utils.host_waits import awaited

STOCK_SIDE, STOCK_PATCH, STOCK_CHANNELS = 128, 2, 16
"""The transformer class's own `sample_size`, `patch_size` and `in_channels`, where a configuration says none."""

STOCK_PIXELS = 8
"""Pixels a side of a latent's element, for the stock pipeline whatever the autoencoder is."""

STOCK_PLACES = (300, 512, 512)
"""The transformer class's own `axes_lens`: places of tokens, rows and columns."""

PROMPT_STARTS = " <Prompt Start> "
"""What the stock pipeline puts between its system prompt and a prompt."""


@dataclass(frozen=True)
class Lumina2Call(StockCall):
    """Guidance keeps the length that each row of the velocity has with the prompt alone (`cfg_normalization`).

    The stock pipeline takes the number of channels for the number of tokens where it shifts by resolution
    (huggingface/diffusers#12913), which it does where the scheduler says `use_dynamic_shifting`; the published one does
    not.

    Attributes:
        channels: of a latent.
    """

    channels: int = STOCK_CHANNELS

    def guided(self, given: Tensor, empty: Tensor, guidance: float) -> Tensor:
        both = empty + guidance * (given - empty)
        return both * (torch.norm(given, dim=-1, keepdim=True) / torch.norm(both, dim=-1, keepdim=True))

    def mu(self, config: Mapping[str, Any], latent_shape: tuple[int, ...], steps: int) -> float:
        low, high = float(config.get("base_image_seq_len", 256)), float(config.get("max_image_seq_len", 4096))
        base, top = float(config.get("base_shift", 0.5)), float(config.get("max_shift", self.most_shift))
        return base + (self.channels - low) * (top - base) / (high - low)

    def understood(self, scheduler: Any) -> dict[str, Any]:
        """With that shift at every resolution."""
        config = super().understood(scheduler)
        mu = self.mu(config, (), 1)
        return {**config, "base_shift": mu, "max_shift": mu} if config.get("use_dynamic_shifting") else config


@dataclass(frozen=True)
class LuminaFamily:
    """Lumina-Image 2.0: a flow-matching transformer over prompt and image tokens in one row, with Gemma 2 as encoder.

    Its time runs from noise to image, and so does what it predicts.

    Attributes:
        stock_call: how the pipeline drives its scheduler.
        network_name: the denoising component.
        max_tokens: of a prompt, the system prompt before it included.
        decodes_with: the autoencoder's shift.
        optional_encoders: none.
    """

    stock_call: Lumina2Call = Lumina2Call(scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True)
    network_name: ClassVar[str] = "transformer"
    max_tokens: ClassVar[int] = 256
    decodes_with: ClassVar[tuple[str, ...]] = ("shift_factor",)
    optional_encoders: ClassVar[tuple[str, ...]] = ()

    def configured(self, folder: Path) -> LuminaFamily:
        """With the folder's number of channels.

        Raises:
            RequestError: the stock pipeline cannot draw images of this size, or the transformer reads fewer tokens.
        """
        network = component_config(folder, self.network_name)
        size, patch = network.get("sample_size", STOCK_SIDE), network.get("patch_size", STOCK_PATCH)
        if not isinstance(size, int) or size % STOCK_PATCH or patch != STOCK_PATCH:
            raise RequestError(
                f"The transformer in {folder} has the sample_size {size} and the patch_size {patch}; Lumina-Image "
                f"2.0's pipeline draws only squares whose side in latents is a multiple of {STOCK_PATCH}, in patches "
                f"of {STOCK_PATCH}. Expected one such number."
            )
        places = (network.get("axes_lens") or [self.max_tokens + 1])[0]
        if places <= self.max_tokens:
            raise RequestError(
                f"The transformer in {folder} has places for {places} tokens of a prompt (axes_lens); the stock "
                f"pipeline gives it up to {self.max_tokens} and the image after them. Expected more than that."
            )
        return replace(self, stock_call=replace(self.stock_call, channels=network.get("in_channels", STOCK_CHANNELS)))

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """What the tokenizer is given: the stock pipeline's system prompt and the prompt; for the empty one nothing."""
        return [pipeline.system_prompt + PROMPT_STARTS + prompt if prompt else "" for prompt in prompts]

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, self.max_tokens

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
        """The transformer's sample size, whatever the autoencoder is."""
        return int(network.get("sample_size", STOCK_SIDE))

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """Whole patches, no more of them than the transformer's rotary embedding has places, and a call that takes a
        latent for 8 pixels whatever the autoencoder is."""
        lengths = network.get("axes_lens") or STOCK_PLACES
        most = STOCK_PATCH * min(lengths[1:])
        return SizeRules(math.lcm(usual.multiple, STOCK_PATCH), most, STOCK_PIXELS)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Features `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null condition.

        The stock pipeline puts its system prompt before a prompt, and not before a negative one.
        """
        encoder = pipeline.text_encoder
        inputs = pipeline.tokenizer(
            self.texts_read(pipeline, prompts),
            padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt",
        ).to(encoder.device)  # fmt: skip
        mask = inputs.attention_mask
        hidden = encoder(inputs.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        hidden = hidden.masked_fill(mask[..., None] == 0, 0)
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden.float(), "encoder_attention_mask": mask})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder: prompts as long as can be."""
        features = torch.zeros(batch, self.max_tokens, network_config["cap_feat_dim"])
        mask = torch.ones(batch, self.max_tokens, dtype=torch.int64)
        return Condition(("",) * batch, {"encoder_hidden_states": features, "encoder_attention_mask": mask})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        mask = condition.tensors["encoder_attention_mask"]
        with awaited(mask.device):  # the network reads how long prompts are
            output: Tensor = network(
                hidden_states=x_t,
                timestep=(1 - network_time / 1000).expand(len(x_t)),
                encoder_hidden_states=condition.tensors["encoder_hidden_states"],
                encoder_attention_mask=_WholeRows(mask) if isinstance(mask, FakeTensor) else mask,
                return_dict=False,
            )[0]
        return -output

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_lumina_twin, folder, "Lumina2Pipeline", options)


class _WholeRows:
    """A mask that keeps all tokens, in a dry run: the network reads lengths off it, and dry tensors have no numbers.

    Args:
        mask: of the shape, without numbers.
    """

    def __init__(self, mask: Tensor):
        self.mask, self.shape = mask, mask.shape

    def bool(self) -> Tensor:
        return self.mask.bool()

    def sum(self, dim: int) -> _WholeRows:
        assert dim == 1
        return self

    def tolist(self) -> list[int]:
        return row_lengths(self.mask)


TEXT_WIDTH = 16
HEADS, KEY_HEADS = 2, 1
AXES = (4, 6, 6)
"""How the width of an attention head is shared between the three rotary positions."""


def write_lumina_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    latent_channels: int = 16,
    dynamic_shifting: bool = False,
) -> Path:
    """Save a random `Lumina2Pipeline` with latents `(16, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: `"velocity"`, the one there is.
        latent_channels: of the autoencoder and the transformer.
        dynamic_shifting: whether the scheduler says that the shift, 6 otherwise, depends on the image's size.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    check_prediction(prediction_type, ("velocity",), "Lumina2Pipeline")
    system_prompt = Lumina2Pipeline(None, None, None, None, None).system_prompt
    with drawn_from(seed):
        tokenizer = tiny_gemma_tokenizer(words=(*WORDS, *system_prompt.split()))  # spelled, it would leave little room
        text_encoder = tiny_gemma2_encoder(tokenizer, width=TEXT_WIDTH)
        transformer = finished(
            Lumina2Transformer2DModel(
                sample_size=LATENT_SIDE,
                in_channels=latent_channels,
                hidden_size=HEADS * sum(AXES),
                num_layers=2,
                num_refiner_layers=1,
                num_attention_heads=HEADS,
                num_kv_heads=KEY_HEADS,
                multiple_of=16,
                axes_dim_rope=AXES,
                axes_lens=(300, 64, 64),
                cap_feat_dim=TEXT_WIDTH,
            )
        )
        vae = tiny_vae(
            latent_channels=latent_channels, scaling_factor=0.3611, shift_factor=0.1159,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0, use_dynamic_shifting=dynamic_shifting)
    return save_quietly(Lumina2Pipeline(transformer, scheduler, vae, text_encoder, tokenizer), folder)
