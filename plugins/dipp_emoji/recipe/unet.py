"""The UNet that a reference can be: a small, real `StableDiffusionPipeline`, which predicts the noise."""

from __future__ import annotations

from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dipp_toolkit.models.tiny_tokenizers import tiny_clip_tokenizer

from ..captions import vocabulary
from .reference import snr

TOKENS = 12
"""Longest caption in tokens, the start and the end token included. All are read: this pipeline masks none."""
SNR_FLOOR = 0.02
"""As of the DiT, and smaller: here the error of the noise at the last time counts 1 / SNR = 213 times that much."""


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer, with merges that make each word of this world one token."""
    tokenizer: CLIPTokenizer = tiny_clip_tokenizer(TOKENS, words=vocabulary())
    return tokenizer


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=TOKENS, projection_dim=128, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """2.3 M parameters: one block a level, attention where there are 8x8 places."""
    return UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, block_out_channels=(32, 48, 96), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=4,
        cross_attention_dim=128, norm_num_groups=8,
    )  # fmt: skip


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Stable Diffusion's own schedule of noise."""
    return DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
        final_sigmas_type="zero",
    )


class StableDiffusion:
    """What the recipe has to know of this pipeline to train it; see `reference.Architecture`."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()
        self.alphas_cumprod: Tensor = build_scheduler().alphas_cumprod

    def build(self) -> nn.ModuleDict:
        """Denoiser and text encoder, untrained."""
        unet = build_unet()
        unet.set_attn_processor(AttnProcessor())
        return nn.ModuleDict({"unet": unet, "text_encoder": build_text_encoder(self.tokenizer)})

    def loss(self, networks: nn.ModuleDict, x_t: Tensor, t: Tensor, x0: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Squared error of the noise, weighted by (min(SNR, 5) + `SNR_FLOOR`) / SNR, for each sample."""
        text = networks["text_encoder"](input_ids=ids).last_hidden_state
        predicted = networks["unet"](x_t, t, text, return_dict=False)[0]
        ratio = snr(self.alphas_cumprod, t)
        alpha, sigma = (ratio / (1 + ratio)).sqrt(), (1 / (1 + ratio)).sqrt()
        noise = (x_t - alpha[:, None, None, None] * x0) / sigma[:, None, None, None]
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        return (ratio.clamp(max=5) + SNR_FLOOR) / ratio * error

    def pipeline(self, networks: nn.ModuleDict, vae: AutoencoderTiny) -> StableDiffusionPipeline:
        """The stock pipeline."""
        return StableDiffusionPipeline(
            vae, networks["text_encoder"], self.tokenizer, networks["unet"], build_scheduler(),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
