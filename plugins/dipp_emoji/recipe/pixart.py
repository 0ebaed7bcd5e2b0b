"""The DiT that a reference can be: a small, real `PixArtAlphaPipeline`, which predicts the clean sample."""

from __future__ import annotations

from typing import cast

from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from ..captions import vocabulary
from .reference import snr

TOKENS = 12
"""Longest caption in tokens, the end token included."""
SNR_FLOOR = 0.1
"""Weight of the noisiest times, where the caption decides, in units of the squared error of the clean sample."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the world's vocabulary, with T5's special tokens."""
    words = ["<pad>", "</s>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TOKENS
    )


def build_text_encoder(vocabulary_size: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary_size, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, use_cache=False, is_encoder_decoder=False,
    )  # fmt: skip
    return T5EncoderModel(config)


def build_transformer() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=64, num_layers=6, in_channels=4, out_channels=4, sample_size=32,
        patch_size=4, cross_attention_dim=192, caption_channels=128, norm_type="ada_norm_single",
        use_additional_conditions=False,
    )  # fmt: skip


def build_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )


class PixArt:
    """What the recipe has to know of this pipeline to train it; see `reference.Architecture`."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()
        self.alphas_cumprod: Tensor = build_scheduler().alphas_cumprod

    def build(self) -> nn.ModuleDict:
        """Denoiser and text encoder, untrained."""
        transformer = build_transformer()
        # On a CPU the backward of the fused attention takes a quarter of the step; plain matrix products do not.
        cast(PixArtTransformer2DModel, transformer).set_attn_processor(AttnProcessor())
        return nn.ModuleDict({"transformer": transformer, "text_encoder": build_text_encoder(len(self.tokenizer))})

    def loss(self, networks: nn.ModuleDict, x_t: Tensor, t: Tensor, x0: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Squared error of the clean sample, weighted by min(SNR, 5) + `SNR_FLOOR`, for each sample."""
        text = networks["text_encoder"](input_ids=ids, attention_mask=mask).last_hidden_state
        predicted = networks["transformer"](
            x_t, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None}, return_dict=False,
        )[0]  # fmt: skip
        error = (predicted.float() - x0).square().mean((1, 2, 3))
        return (snr(self.alphas_cumprod, t).clamp(max=5) + SNR_FLOOR) * error

    def pipeline(self, networks: nn.ModuleDict, vae: AutoencoderTiny) -> PixArtAlphaPipeline:
        """The stock pipeline."""
        return PixArtAlphaPipeline(
            self.tokenizer, networks["text_encoder"], vae, networks["transformer"], build_scheduler()
        )
