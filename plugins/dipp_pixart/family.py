"""How the PixArt pipelines encode prompts and call their transformer, and tiny twins of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.original_layout.checkpoint import CheckpointLayout
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_t5_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import T5_TOKENS, tiny_t5_tokenizer
from dipp_toolkit.utils.device import sent
from dipp_toolkit.utils.json_files import read_json

from .captions import cleaned

BINNED = {32: 256, 64: 512, 128: 1024}
"""Pixels of the square that the stock pipeline rounds a size to, by the transformer's `sample_size`."""

SIGMA_TOKENS = 300
"""Tokens that PixArt-Sigma's stock pipeline reads."""

COMFY_HEADS = (16, 72)
"""Attention heads of the transformer that ComfyUI knows, and numbers of each."""

SIZED_AT = 128
"""The `sample_size` of the transformers to which the stock pipeline gives an image's size."""


@dataclass(frozen=True)
class PixArtFamily:
    """PixArt-alpha: a DiT with cross attention to T5 embeddings.

    Attributes:
        tokenizer_limit: the tokenizer's `model_max_length`, where a folder says one.
        takes_size: whether the transformer takes an image's size.
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: captions are padded and cut to this many tokens (PixArt-alpha's own number is 120), or to the
            tokenizer's limit where that is lower.
        binned: pixels of the square that the stock pipeline rounds a size to, by the transformer's `sample_size`.
        decodes_with: nothing but the autoencoder's scaling factor.
        optional_encoders: none.
    """

    tokenizer_limit: int | None = None
    takes_size: bool = False
    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = StockCall(begins_at_zero=True, single_step_output=1)
    max_tokens: ClassVar[int] = 120
    binned: ClassVar[Mapping[int, int]] = BINNED
    decodes_with: ClassVar[tuple[str, ...]] = ()
    optional_encoders: ClassVar[tuple[str, ...]] = ()

    def configured(self, folder: Path) -> PixArtFamily:
        """With the tokenizer's limit, and whether the transformer takes sizes.

        Raises:
            RequestError: the stock pipeline cannot draw images of this size.
        """
        network = component_config(folder, self.network_name)
        size, takes_size = network.get("sample_size", SIZED_AT), network.get("use_additional_conditions")
        if not isinstance(size, int):
            raise RequestError(
                f"The transformer in {folder} has the sample_size {size}; PixArt's pipelines draw only squares. "
                "Expected one number."
            )
        if takes_size and size != SIZED_AT:
            raise RequestError(
                f"The transformer in {folder} takes an image's size (use_additional_conditions) and has the "
                f"sample_size {size}; the stock pipeline passes it only at {SIZED_AT} and fails elsewhere."
            )
        path = folder / "tokenizer" / "tokenizer_config.json"
        stated = read_json(path).get("model_max_length") if path.is_file() else None
        limit = stated if isinstance(stated, int) and stated > 0 else None
        return replace(self, tokenizer_limit=limit, takes_size=bool(network) and _takes_size(network))

    def encoding_settings(self, folder: Path) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "captions": "cleaned"}

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """What the tokenizer is given: captions that are cleaned."""
        return cleaned(pipeline, prompts)

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, min(self.max_tokens, pipeline.tokenizer.model_max_length)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """No rounding where the size is not one that the pipeline rounds to, and no more tokens than the
        tokenizer is made for."""
        channels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or ()
        pixels = network["sample_size"] * 2 ** (len(channels) - 1)
        arguments: dict[str, Any] = {}
        if self.binned.get(network["sample_size"]) != pixels:
            arguments["use_resolution_binning"] = False
        if self.tokenizer_limit is not None and self.tokenizer_limit < self.max_tokens:
            arguments["max_sequence_length"] = self.tokenizer_limit
        return arguments

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and mask `(batch, tokens)`; the empty prompt is the null condition.

        The transformer gives masked tokens an attention of exactly 0, whatever stands there; here it is zeros.
        """
        _, length = self.token_limit(pipeline)
        device = pipeline.text_encoder.device
        inputs = pipeline.tokenizer(
            self.texts_read(pipeline, prompts),
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
        condition = Condition(("",) * batch, {"encoder_hidden_states": tokens, "encoder_attention_mask": mask})
        return replace(self, takes_size=_takes_size(network_config)).at_size(condition, (1, 1))

    def at_size(self, condition: Condition, size: tuple[int, int]) -> Condition:
        """With `resolution` `(batch, 2)`, height and width, and `aspect_ratio` `(batch, 1)`, where they are read."""
        if not self.takes_size:
            return condition
        hidden, (height, width) = condition.tensors["encoder_hidden_states"], size
        values = {"resolution": [height, width], "aspect_ratio": [height / width]}
        added = {
            name: sent(torch.tensor([numbers], dtype=torch.float32), hidden.device).expand(len(hidden), -1)
            for name, numbers in values.items()
        }
        return Condition(condition.prompts, {**condition.tensors, **added})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        takes_size = cast(Any, network).use_additional_conditions
        sizes = {
            name: condition.tensors[name].to(x_t) if takes_size else None for name in ("resolution", "aspect_ratio")
        }
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

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """A file of the transformer alone."""
        return CheckpointLayout("")

    def to_original_names(self, network: nn.Module) -> dict[str, Tensor]:
        """See `published_names`."""
        from .published_names import to_published_names

        return to_published_names(network)

    def comfyui(self, folder: Path) -> ComfyModel:
        """ComfyUI's `PixArtAlpha`; without layers for an image's size it is taken for a sigma, and scaled as one."""
        network = component_config(folder, self.network_name)
        heads, head = network.get("num_attention_heads", 16), network.get("attention_head_dim", 72)
        return ComfyModel(
            betas="linear",
            beta_start=0.0001,
            beta_end=0.02,
            clip_type="pixart",
            sized=self.takes_size,
            latent_scale=0.18215 if self.takes_size else 0.13025,
            unknown=""
            if (heads, head) == COMFY_HEADS
            else f"it knows 16 heads of 72 numbers, and this transformer has {heads} of {head}",
            differs=("ComfyUI does not clean captions as PixArt's pipelines do: type plain words.",),
        )

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_pixart_twin, folder, "PixArtAlphaPipeline", options)


class PixArtSigmaFamily(PixArtFamily):
    """PixArt-Sigma: PixArt-alpha's transformer, which here never takes an image's size, over SDXL's latents.

    Attributes:
        stock_call: how the pipeline drives its scheduler.
        max_tokens: captions are padded and cut to this many tokens, or to the tokenizer's limit where that is lower.
        binned: with one size more than PixArt-alpha's, 2048 pixels.
    """

    stock_call: ClassVar[StockCall] = StockCall()
    max_tokens: ClassVar[int] = SIGMA_TOKENS
    binned: ClassVar[Mapping[int, int]] = {**BINNED, 256: 2048}

    def configured(self, folder: Path) -> PixArtSigmaFamily:
        """With the tokenizer's limit.

        Raises:
            RequestError: the stock pipeline cannot draw images of this size, or the transformer takes an image's size,
                which the stock pipeline does not give it.
        """
        network = component_config(folder, self.network_name)
        if network and _takes_size(network):
            raise RequestError(
                f"The transformer in {folder} takes an image's size, which PixArt-Sigma's pipeline does not give it. "
                f"Expected use_additional_conditions: false in {self.network_name}/config.json; for a transformer of "
                "PixArt-alpha name PixArtAlphaPipeline in model_index.json."
            )
        return cast(PixArtSigmaFamily, super().configured(folder))

    def write_twin(self, folder: Path, **options: Any) -> None:
        write_with(write_pixart_sigma_twin, folder, "PixArtSigmaPipeline", options)


def _takes_size(network: Mapping[str, Any]) -> bool:
    """Whether a transformer of this configuration takes an image's size; by default those of 1024 pixels are."""
    takes_size = network.get("use_additional_conditions")
    return network.get("sample_size", SIZED_AT) == SIZED_AT if takes_size is None else bool(takes_size)


CHANNELS = 4
TEXT_WIDTH = 32
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def write_pixart_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = T5_TOKENS,
    sample_size: int = LATENT_SIDE,
) -> Path:
    """Save a random `PixArtAlphaPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Its transformer has twice the channels out that it has in, as published: half of them are a variance.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` by default.
        max_tokens: the tokenizer's `model_max_length`.
        sample_size: of a latent; at 128 the transformer takes an image's size, as the published one of 1024 pixels.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import PixArtAlphaPipeline

    check_prediction(prediction_type, PREDICTIONS, "PixArtAlphaPipeline")
    takes_size = sample_size == SIZED_AT
    with drawn_from(seed):
        parts = _tiny_parts(max_tokens, sample_size, takes_size, 0.18215)
    return save_quietly(PixArtAlphaPipeline(*parts, _scheduler(prediction_type)), folder)


def write_pixart_sigma_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = SIGMA_TOKENS,
    sample_size: int = LATENT_SIDE,
) -> Path:
    """Save a random `PixArtSigmaPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` by default.
        max_tokens: the tokenizer's `model_max_length`.
        sample_size: of a latent.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import PixArtSigmaPipeline

    check_prediction(prediction_type, PREDICTIONS, "PixArtSigmaPipeline")
    with drawn_from(seed):
        parts = _tiny_parts(max_tokens, sample_size, False, 0.13025)
    return save_quietly(PixArtSigmaPipeline(*parts, _scheduler(prediction_type)), folder)


def _tiny_parts(max_tokens: int, sample_size: int, takes_size: bool, scaling_factor: float) -> tuple[Any, ...]:
    """A tokenizer, its text encoder, an autoencoder and a transformer, in the order of the pipelines' arguments."""
    from diffusers import PixArtTransformer2DModel

    head = 24 if takes_size else 16  # a third of both heads' width is that of each number about the size
    tokenizer = tiny_t5_tokenizer(max_tokens)
    text_encoder = tiny_t5_encoder(tokenizer, width=TEXT_WIDTH)
    transformer = finished(
        PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=head,
            num_layers=2,
            in_channels=CHANNELS,
            out_channels=2 * CHANNELS,
            sample_size=sample_size,
            patch_size=2,
            cross_attention_dim=2 * head,
            caption_channels=TEXT_WIDTH,
            norm_type="ada_norm_single",
            use_additional_conditions=takes_size,
        )
    )
    return tokenizer, text_encoder, tiny_vae(latent_channels=CHANNELS, scaling_factor=scaling_factor), transformer


def _scheduler(prediction_type: str | None) -> Any:
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="linear",
        solver_order=2,
        algorithm_type="dpmsolver++",
        prediction_type=prediction_type or "epsilon",
    )
