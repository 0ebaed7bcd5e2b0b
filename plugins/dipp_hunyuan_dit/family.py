"""How a HunyuanDiT pipeline encodes prompts and calls its transformer, and a tiny twin of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_bert_encoder,
    tiny_t5_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_bert_tokenizer, tiny_t5_tokenizer
from dipp_toolkit.utils.device import sent

CLIP_TOKENS, T5_TOKENS = 77, 256
"""Tokens of a prompt that the stock pipeline reads, whatever the transformer's configuration says."""

PIXELS = 8
"""Pixels of a latent's side, by which the stock pipeline counts the places of its rotary embedding."""

ROTARY_SIDE = 512
"""Pixels of a square of which every patch has a place of its own in the rotary embedding; others are spread over it."""

ORIGINAL_SIZE = (1024, 1024)
"""The size that the stock pipeline says an image had before it was scaled, whatever is drawn."""

BINNED = (1024, 1280)
"""Sides in pixels of the squares that the stock pipeline draws unrounded."""

MASK = "text_embedding_mask"
HIDDEN = "encoder_hidden_states"
"""The transformer's arguments for CLIP's tokens; those for T5's have `_t5` behind them."""

SIZES = "image_meta_size"


@dataclass(frozen=True)
class HunyuanDiTFamily:
    """HunyuanDiT: a DiT with cross attention to the tokens of a bilingual CLIP, which is a BERT, and of mT5.

    Where a mask says that a token is padding the transformer has an embedding of its own, so CLIP's are zeros there.
    mT5's are kept: they are pooled as well, all of them. Up to version 1.1 the transformer takes six numbers about the
    image's size and a style, of which there is one.

    Attributes:
        takes_size: whether the transformer takes an image's size.
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        max_tokens: mT5 reads this many tokens; CLIP reads 77 of the same prompt.
        decodes_with: nothing but the autoencoder's scaling factor.
        optional_encoders: none.
    """

    takes_size: bool = False
    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = StockCall()
    max_tokens: ClassVar[int] = T5_TOKENS
    decodes_with: ClassVar[tuple[str, ...]] = ()
    optional_encoders: ClassVar[tuple[str, ...]] = ()

    def configured(self, folder: Path) -> HunyuanDiTFamily:
        """With whether the transformer takes sizes.

        Raises:
            RequestError: the stock pipeline cannot draw with this transformer or autoencoder.
        """
        network, vae = component_config(folder, self.network_name), component_config(folder, "vae")
        if not network:
            return self
        size = network.get("sample_size", 32)
        if not isinstance(size, int) or size % 2:
            raise RequestError(
                f"The transformer in {folder} has the sample_size {size}; HunyuanDiT draws only squares, whose side in "
                "latents is even. Expected one such number."
            )
        read = (network.get("text_len", CLIP_TOKENS), network.get("text_len_t5", T5_TOKENS))
        if read != (CLIP_TOKENS, T5_TOKENS) or not network.get("learn_sigma", True):
            raise RequestError(
                f"The transformer in {folder} reads {read[0]} and {read[1]} tokens and "
                f"{'predicts' if network.get('learn_sigma', True) else 'does not predict'} a variance; HunyuanDiT's "
                f"pipeline gives it {CLIP_TOKENS} and {T5_TOKENS} and drops a variance (text_len, text_len_t5 and "
                f"learn_sigma in {self.network_name}/config.json)."
            )
        if vae and _pixels(vae) != PIXELS:
            raise RequestError(
                f"The autoencoder in {folder} makes {_pixels(vae)} pixels of a latent's side; HunyuanDiT's pipeline "
                f"counts on {PIXELS}."
            )
        return replace(self, takes_size=_takes_size(network))

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer_2, min(self.max_tokens, pipeline.tokenizer_2.model_max_length)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """No rounding where the size is not one that the pipeline draws."""
        return {} if network["sample_size"] * PIXELS in BINNED else {"use_resolution_binning": False}

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)` and masks `(batch, tokens)` of both text encoders; the empty prompt is
        the null condition."""
        tensors: dict[str, Tensor] = {}
        for index, (behind, length) in enumerate({"": CLIP_TOKENS, "_t5": T5_TOKENS}.items()):
            encoder = (pipeline.text_encoder, pipeline.text_encoder_2)[index]
            hidden, _, mask, _ = pipeline.encode_prompt(
                list(prompts), device=encoder.device, dtype=encoder.dtype, do_classifier_free_guidance=False,
                max_sequence_length=length, text_encoder_index=index,
            )  # fmt: skip
            hidden = hidden if behind else hidden.masked_fill(mask[..., None] == 0, 0)
            tensors |= {HIDDEN + behind: hidden.float(), MASK + behind: mask}
        return Condition(tuple(prompts), tensors)

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tensors: dict[str, Tensor] = {}
        for behind, length in {"": CLIP_TOKENS, "_t5": T5_TOKENS}.items():
            width = network_config[f"cross_attention_dim{behind}"]
            tensors |= {HIDDEN + behind: torch.zeros(batch, length, width)}
            tensors |= {MASK + behind: torch.ones(batch, length, dtype=torch.int64)}
        condition = Condition(("",) * batch, tensors)
        return replace(self, takes_size=_takes_size(network_config)).at_size(condition, ORIGINAL_SIZE)

    def at_size(self, condition: Condition, size: tuple[int, int]) -> Condition:
        """With `image_meta_size` `(batch, 6)`, where it is read: the original height and width, the height and width,
        and the crop's corner."""
        if not self.takes_size:
            return condition
        hidden = condition.tensors[HIDDEN]
        numbers = sent(torch.tensor([*ORIGINAL_SIZE, *size, 0, 0], dtype=torch.float32), hidden.device)
        return Condition(condition.prompts, {**condition.tensors, SIZES: numbers.expand(len(hidden), -1)})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        config, sizes = cast(Any, network).config, condition.tensors.get(SIZES)
        rows, columns = (side // config.patch_size for side in x_t.shape[-2:])
        output: Tensor = network(
            x_t,
            network_time.expand(len(x_t)).to(x_t.dtype),  # whose dtype is that of all that is added to it
            **{name: condition.tensors[name] for name in (HIDDEN, MASK, f"{HIDDEN}_t5", f"{MASK}_t5")},
            image_meta_size=None if sizes is None else sizes.to(x_t.dtype).contiguous(),
            style=torch.zeros(len(x_t), dtype=torch.int64, device=x_t.device),
            image_rotary_emb=rotary_embedding(config.attention_head_dim, rows, columns, config.patch_size, x_t.device),
            return_dict=False,
        )[0]
        return output.chunk(2, dim=1)[0]

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_hunyuan_dit_twin, folder, "HunyuanDiTPipeline", options)


def rotary_embedding(
    width: int, rows: int, columns: int, patch: int, device: torch.device
) -> tuple[Float[Tensor, "patches width"], Float[Tensor, "patches width"]]:
    """Cosines and sines of the places of an image's patches, by diffusers' own functions.

    Args:
        width: of an attention head.
        rows: of patches.
        columns: of patches.
        patch: side of a patch in latents.
        device: where they are used.
    """
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    region = get_resize_crop_region_for_grid((rows, columns), ROTARY_SIDE // PIXELS // patch)
    cosines, sines = get_2d_rotary_pos_embed(width, region, (rows, columns), device=device, output_type="pt")
    return cosines, sines


def _takes_size(network: Mapping[str, Any]) -> bool:
    """Whether a transformer of this configuration takes an image's size; those of versions 1.0 and 1.1 do."""
    return bool(network.get("use_style_cond_and_image_meta_size", True))


def _pixels(vae: Mapping[str, Any]) -> int:
    channels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or ()
    return int(2 ** (len(channels) - 1))


CHANNELS = 4
HEADS, HEAD_WIDTH = 2, 16
WIDTH, SECOND_WIDTH, POOLED_WIDTH = 24, 32, 16
"""Of the text encoders, which differ so that no code can confuse one with the other, and of mT5's pooled tokens."""
VAE_CHANNELS = (4, 4, 8, 8)


def write_hunyuan_dit_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = CLIP_TOKENS,
    t5_tokens: int = T5_TOKENS,
    takes_size: bool = False,
) -> Path:
    """Save a random `HunyuanDiTPipeline` with latents `(4, 8, 8)` and images `(3, 64, 64)`.

    Its four blocks have one long skip connection among them.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"v_prediction"` by default.
        max_tokens: the first tokenizer's `model_max_length`; the stock pipeline reads 77 tokens whatever it is.
        t5_tokens: the second tokenizer's `model_max_length`.
        takes_size: whether the transformer takes an image's size and a style, as up to version 1.1.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction", "sample"), "HunyuanDiTPipeline")
    with drawn_from(seed):
        tokenizers = tiny_bert_tokenizer(max_tokens), tiny_t5_tokenizer(t5_tokens)
        text_encoder = tiny_bert_encoder(tokenizers[0], width=WIDTH)
        second_encoder = tiny_t5_encoder(tokenizers[1], width=SECOND_WIDTH)
        transformer = finished(
            HunyuanDiT2DModel(
                sample_size=LATENT_SIDE,
                patch_size=2,
                in_channels=CHANNELS,
                num_layers=4,
                num_attention_heads=HEADS,
                attention_head_dim=HEAD_WIDTH,
                hidden_size=HEADS * HEAD_WIDTH,
                mlp_ratio=2.0,
                cross_attention_dim=WIDTH,
                cross_attention_dim_t5=SECOND_WIDTH,
                pooled_projection_dim=POOLED_WIDTH,
                use_style_cond_and_image_meta_size=takes_size,
            )
        )
        vae = tiny_vae(VAE_CHANNELS, latent_channels=CHANNELS, scaling_factor=0.13025)
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.018,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction_type or "v_prediction",
    )
    pipeline = HunyuanDiTPipeline(
        vae, text_encoder, tokenizers[0], transformer, scheduler, None, None, requires_safety_checker=False,
        text_encoder_2=second_encoder, tokenizer_2=tokenizers[1],
    )  # fmt: skip
    return save_quietly(pipeline, folder)
