"""How Stable Diffusion pipelines encode prompts and call their UNet, and tiny twins of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.original_layout.checkpoint import CheckpointLayout, Encoder
from dipp_toolkit.models.sizes import SizeRules
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import (
    LATENT_SIDE,
    check_prediction,
    drawn_from,
    finished,
    save_quietly,
    tiny_clip_encoder,
    tiny_vae,
    write_with,
)
from dipp_toolkit.models.tiny_tokenizers import tiny_clip_tokenizer
from dipp_toolkit.utils.device import sent

CLIP_TOKENS = 77
SECOND_VERSION_WIDTH = 1024
"""Of OpenCLIP's token embeddings, which Stable Diffusion 2 reads."""
COMFY_NOISE: dict[str, Any] = {"betas": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Noise levels of all of ComfyUI's Stable Diffusions."""
COMFY_CHANNELS = 320
"""Channels of the UNets that it recognises."""
BUCKET_LATENTS = 8
"""Of which the sides of Stable Diffusion XL's training images are multiples (arXiv 2307.01952, appendix I)."""
GUIDANCE = "timestep_cond"
"""The condition's tensor, and the UNet's argument, that holds the embedding of a guidance scale."""


class StableDiffusionFamily:
    """Stable Diffusion 1 and 2: a UNet with cross attention to CLIP's token embeddings.

    A latent consistency model's UNet (`time_cond_proj_dim`) takes the guidance as an input and is called once a step.
    As a generator it gets a guidance of 1, as from the stock pipeline with `guidance_scale=1.0`.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        added: tensors of the condition that the UNet takes besides the token embeddings.
        decodes_with: nothing but the autoencoder's scaling factor.
        optional_encoders: text encoders that a pipeline may lack.
        idle_settings: a UNet takes latents of any size.
    """

    network_name = "unet"
    stock_call = StockCall()
    added: tuple[str, ...] = ()
    decodes_with: tuple[str, ...] = ()
    optional_encoders: tuple[str, ...] = ()
    idle_settings: tuple[str, ...] = ("sample_size",)

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

    def takes_guidance(self, network_config: Mapping[str, Any]) -> bool:
        """Whether the UNet takes a guidance scale as an input."""
        return network_config.get("time_cond_proj_dim") is not None

    def guided(self, network: nn.Module, condition: Condition, guidance: float) -> Condition:
        """The condition with the guidance's embedding, `(batch, width)`, for a UNet that takes one."""
        device = next(iter(condition.tensors.values())).device
        embedding = guidance_embedding(guidance, cast(Any, network).config.time_cond_proj_dim, device)
        return Condition(condition.prompts, {**condition.tensors, GUIDANCE: embedding.expand(len(condition), -1)})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        if GUIDANCE not in condition.tensors and self.takes_guidance(cast(Any, network).config):
            condition = self.guided(network, condition, 1.0)
        embedding = condition.tensors.get(GUIDANCE)
        output: Tensor = network(
            x_t,
            network_time.expand(len(x_t)),
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            timestep_cond=None if embedding is None else embedding.to(x_t.dtype),
            added_cond_kwargs={name: condition.tensors[name] for name in self.added},
            return_dict=False,
        )[0]
        return output

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """Stable Diffusion 1's, with CLIP in transformers' names, or 2's, whose text encoder was OpenCLIP's."""
        if component_config(folder, self.network_name).get("cross_attention_dim") == SECOND_VERSION_WIDTH:
            encoder = Encoder("cond_stage_model.model.", "open_clip")
        else:
            encoder = Encoder("cond_stage_model.transformer.", "clip")
        return CheckpointLayout("model.diffusion_model.", "first_stage_model.", {"text_encoder": encoder})

    def to_original_names(self, network: nn.Module) -> dict[str, Tensor]:
        """See `original_names`."""
        from .original_names import original_unet

        return original_unet(network)

    def comfyui(self, folder: Path) -> ComfyModel:
        """ComfyUI's `SD15` and `SD20`. Of the latter it guesses from the weights whether it predicts velocities, so
        that the workflow says it."""
        network = component_config(folder, self.network_name)
        width, channels = network.get("cross_attention_dim"), next(iter(network.get("block_out_channels") or [None]))
        known = {768: False, SECOND_VERSION_WIDTH: True}
        fits = channels == COMFY_CHANNELS and known.get(width or 0) == bool(network.get("use_linear_projection"))
        return ComfyModel(
            **COMFY_NOISE,
            prediction="" if width == SECOND_VERSION_WIDTH else "epsilon",
            latent_scale=0.18215,
            kohya=True,
            unknown=""
            if fits
            else f"it knows UNets of 320 channels that read 768 or 1024 numbers a token, and this one "
            f"has {channels} and reads {width}",
        )

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        write_with(write_stable_diffusion_twin, folder, "StableDiffusionPipeline", options)


class StableDiffusionXLFamily(StableDiffusionFamily):
    """Stable Diffusion XL: two text encoders side by side, the second one's pooled embedding, and the image's sizes.

    The sizes given are those of the resolution the network was trained at, with no crop. Its first text encoder may be
    missing, as in the stock pipeline: the second one's tokens are all there is then.

    Attributes:
        decodes_with: mean and deviation of every channel where the autoencoder says them, in float32 where it asks.
    """

    added = ("text_embeds", "time_ids")
    stock_call = StockCall(begins_at_zero=True)
    decodes_with = ("latents_mean", "force_upcast")
    optional_encoders = ("text_encoder",)

    def configured(self, folder: Path) -> StableDiffusionXLFamily:
        """This family.

        Raises:
            RequestError: the UNet takes other numbers about an image than its six sizes, as the refiner's does.
        """
        unet, encoder = component_config(folder, "unet"), component_config(folder, "text_encoder_2")
        total = unet.get("projection_class_embeddings_input_dim")
        width, pooled = int(unet.get("addition_time_embed_dim") or 0), int(encoder.get("projection_dim") or 0)
        if total and width and pooled and total != 6 * width + pooled:
            raise RequestError(
                f"The UNet in {folder} takes {total} numbers about an image, and Stable Diffusion XL gives {pooled} of "
                f"the prompt and {width} for each of six sizes, {6 * width + pooled} together. A refiner's takes an "
                "aesthetic score in place of sizes; it starts from an image and cannot be used here. Name the base."
            )
        return self

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """The size where it is not a square: the stock pipeline takes `sample_size` for one number."""
        if not isinstance(network["sample_size"], Sequence):
            return {}
        pixels = Autoencoding().pixels_per_latent(vae)
        height, width = network["sample_size"]
        return {"height": height * pixels, "width": width * pixels}

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """Sides of multiples of 8 latents, 64 pixels, as those of the buckets that it was trained in."""
        return replace(usual, multiple=math.lcm(usual.multiple, BUCKET_LATENTS))

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        tokenizer = pipeline.tokenizer if pipeline.tokenizer is not None else pipeline.tokenizer_2
        return tokenizer, tokenizer.model_max_length

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
        sizes = sent(torch.tensor([*size, 0, 0, *size], dtype=torch.float32), hidden.device)
        return Condition(condition.prompts, {**condition.tensors, "time_ids": sizes.expand(len(hidden), -1)})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        sizes = 6 * network_config["addition_time_embed_dim"]
        pooled = torch.zeros(batch, network_config["projection_class_embeddings_input_dim"] - sizes)
        tensors = super().blank(network_config, batch).tensors
        return Condition(("",) * batch, {**tensors, "text_embeds": pooled, "time_ids": torch.zeros(batch, 6)})

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """Stable Diffusion XL's: two embedders, the first in transformers' names and the second in OpenCLIP's."""
        encoders = {
            "text_encoder": Encoder("conditioner.embedders.0.transformer.", "clip"),
            "text_encoder_2": Encoder("conditioner.embedders.1.model.", "open_clip"),
        }
        return CheckpointLayout("model.diffusion_model.", "first_stage_model.", encoders)

    def comfyui(self, folder: Path) -> ComfyModel:
        """ComfyUI's `SDXL`, whose sizes are those of the latent, as here."""
        network = component_config(folder, self.network_name)
        width, channels = network.get("cross_attention_dim"), next(iter(network.get("block_out_channels") or [None]))
        fits = channels == COMFY_CHANNELS and width == 2048
        return ComfyModel(
            **COMFY_NOISE,
            latent_scale=0.13025,
            kohya=True,
            unknown=""
            if fits
            else f"it knows UNets of 320 channels that read 2048 numbers a token, and this one has "
            f"{channels} and reads {width}",
        )

    def write_twin(self, folder: Path, **options: Any) -> None:
        write_with(write_stable_diffusion_xl_twin, folder, "StableDiffusionXLPipeline", options)


def guidance_embedding(guidance: float, width: int, device: torch.device) -> Float[Tensor, "1 width"]:
    """A latent consistency model's input for a guidance scale: diffusers' own embedding of one less."""
    from diffusers import StableDiffusionPipeline

    embed = cast(Any, StableDiffusionPipeline).get_guidance_scale_embedding  # a method that looks at no pipeline
    with torch.device(device):
        return cast(Tensor, embed(None, torch.full((1,), guidance - 1.0), embedding_dim=width))


CHANNELS = 4
WIDTH, SECOND_WIDTH = 16, 24
"""Of the text encoders. They differ, so that no code can confuse one with the other."""

SIZE_WIDTH = 8
"""Of the embedding of each of SDXL's six numbers about the image's size."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _unet(**special: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return finished(
        UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            **special,
        )
    )


def first_version_unet(time_cond_proj_dim: int | None) -> Any:
    """A random UNet of a twin of Stable Diffusion 1.

    Args:
        time_cond_proj_dim: width of a guidance embedding that it takes; None for none.
    """
    return _unet(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        time_cond_proj_dim=time_cond_proj_dim,
    )


def write_stable_diffusion_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = CLIP_TOKENS,
    time_cond_proj_dim: int | None = None,
) -> Path:
    """Save a random `StableDiffusionPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` by default.
        max_tokens: the tokenizer's `model_max_length`.
        time_cond_proj_dim: width of a guidance embedding that the UNet takes, as a latent consistency model's does.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction"), "StableDiffusionPipeline")
    with drawn_from(seed):
        tokenizer = tiny_clip_tokenizer(max_tokens)
        text_encoder = tiny_clip_encoder(tokenizer, width=WIDTH)
        unet = first_version_unet(time_cond_proj_dim)
        vae = tiny_vae(latent_channels=CHANNELS, scaling_factor=0.18215)
    scheduler = PNDMScheduler(
        **BETAS, skip_prk_steps=True, set_alpha_to_one=False, prediction_type=prediction_type or "epsilon"
    )
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    return save_quietly(pipeline, folder)


def write_stable_diffusion_xl_twin(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: str | None = None,
    max_tokens: int = CLIP_TOKENS,
    time_cond_proj_dim: int | None = None,
    first_encoder: bool = True,
) -> Path:
    """Save a random `StableDiffusionXLPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Its second tokenizer pads with `!`, as published.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` by default.
        max_tokens: the tokenizers' `model_max_length`.
        time_cond_proj_dim: width of a guidance embedding that the UNet takes, as a latent consistency model's does.
        first_encoder: whether it has the first of its text encoders, without which the stock pipeline draws too.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction", "sample"), "StableDiffusionXLPipeline")
    with drawn_from(seed):
        tokenizer, second_tokenizer = tiny_clip_tokenizer(max_tokens), tiny_clip_tokenizer(max_tokens, pad_token="!")
        text_encoder = tiny_clip_encoder(tokenizer, width=WIDTH)
        second_encoder = tiny_clip_encoder(second_tokenizer, width=SECOND_WIDTH, projected=True)
        unet = _unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(1, 2),
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            cross_attention_dim=(WIDTH if first_encoder else 0) + SECOND_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=SIZE_WIDTH,
            projection_class_embeddings_input_dim=SECOND_WIDTH + 6 * SIZE_WIDTH,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        vae = tiny_vae(latent_channels=CHANNELS, scaling_factor=0.13025)
    scheduler = EulerDiscreteScheduler(
        **BETAS, timestep_spacing="leading", prediction_type=prediction_type or "epsilon"
    )
    first = (text_encoder, tokenizer) if first_encoder else (None, None)
    pipeline = StableDiffusionXLPipeline(
        vae, first[0], second_encoder, first[1], second_tokenizer, unet, scheduler,
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    return save_quietly(pipeline, folder)
