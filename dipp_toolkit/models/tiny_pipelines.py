"""Tiny twins: random pipelines in the folder layout and of the component classes of published ones, made offline.

Whatever loads, encodes, trains or exports a published pipeline runs on its twin, in seconds and on a processor. A
pipeline family that has a twin offers `write_twin(folder, *, seed, **options)`; what its networks share is here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RequestError
from ..registry import get_registry
from ..utils.imports import check_options
from ..utils.messages import unknown_name
from .family import TinyTwin
from .files.diffusers_version import check_diffusers
from .files.folders import quiet_loading

LATENT_SIDE = 8
VAE_CHANNELS = (8, 16)
IMAGE_SIDE = LATENT_SIDE * 2 ** (len(VAE_CHANNELS) - 1)
"""Pixels, by the pipelines' own rule that every level of the autoencoder but the last one halves the side."""

PERTURBATION = 0.05
"""The scale of the noise on every weight. What starts as zero, such as adaLN layers, would hide the prompt."""


def write_twin(pipeline_class: str, folder: Path, *, seed: int = 0, **options: Any) -> Path:
    """Save a tiny random pipeline. Where this fails, nothing is left in `folder`'s place.

    Args:
        pipeline_class: the diffusers class, such as `"FluxPipeline"`.
        folder: where to; missing, or empty.
        seed: of the weights.
        options: what the family's twin takes besides.

    Returns:
        `folder`.

    Raises:
        RequestError: the class is unknown, has no twin or came with a later diffusers, an option is unknown, or the
            folder is in use.
    """
    families = get_registry().entries["pipeline"]
    if pipeline_class not in families:
        raise RequestError(unknown_name("pipeline", pipeline_class, families))
    family = families[pipeline_class].build()
    if not isinstance(family, TinyTwin):
        raise RequestError(f"The plugin '{families[pipeline_class].plugin}' has no tiny twin of {pipeline_class}.")
    check_diffusers(pipeline_class, family)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RequestError(f"{folder} is in use; name a folder that is missing or empty.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.partial-") as scratch:
        whole = Path(scratch) / folder.name
        family.write_twin(whole, seed=seed, **options)
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)
    return folder


def write_with(writer: Any, folder: Path, what: str, options: dict[str, Any]) -> Path:
    """Call a twin's function, in a family's `write_twin`.

    Raises:
        RequestError: it does not take one of the options; the message names those it does.
    """
    check_options(writer, options, f"twin of {what}")
    path: Path = writer(folder, **options)
    return path


def save_quietly(pipeline: Any, folder: Path) -> Path:
    """Save a pipeline without progress bars, and return its folder."""
    with quiet_loading():
        pipeline.save_pretrained(folder)
    return folder


def check_prediction(prediction_type: str | None, predictions: Iterable[str], what: str) -> None:
    """Refuse a prediction that the twin's published scheduler class cannot express.

    Raises:
        RequestError: `prediction_type` is neither None nor one of `known`.
    """
    if prediction_type is not None and prediction_type not in predictions:
        raise RequestError(
            f"The scheduler of a {what} twin has no prediction_type '{prediction_type}'; it has "
            f"{', '.join(predictions)}."
        )


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Random numbers of this seed inside, and outside as though nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def finished(network: nn.Module) -> Any:
    """The network in evaluation mode, with noise on every weight, so that none is zero or one."""
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=PERTURBATION)
    return network.eval()


def tiny_clip_encoder(tokenizer: Any, *, width: int = 16, projected: bool = False) -> Any:
    """A `CLIPTextModel`, or a `CLIPTextModelWithProjection`, for a tokenizer.

    The end token's number is the tokenizer's: the pooled embedding is taken where the first one stands.

    Args:
        tokenizer: what its prompts are encoded with.
        width: of its embeddings, pooled ones included.
        projected: whether the pooled embedding is projected.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        hidden_act="gelu" if projected else "quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return finished((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def tiny_t5_encoder(tokenizer: Any, *, width: int = 32) -> Any:
    """A `T5EncoderModel` of T5 1.1, with gated feed-forward layers, for a tokenizer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return finished(T5EncoderModel(config))


def tiny_qwen3_encoder(tokenizer: Any, *, width: int = 16, layers: int = 2, causal: bool = False) -> Any:
    """A `Qwen3Model`, or a `Qwen3ForCausalLM`, with grouped queries, for a tokenizer.

    Args:
        tokenizer: what its prompts are encoded with.
        width: of its embeddings.
        layers: how many; pipelines read some of them.
        causal: whether it has the head of a language model.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return finished((Qwen3ForCausalLM if causal else Qwen3Model)(config))


def tiny_gemma2_encoder(tokenizer: Any, *, width: int = 16, layers: int = 2) -> Any:
    """A `Gemma2Model` with grouped queries, every second layer of which sees a window, for a tokenizer.

    Args:
        tokenizer: what its prompts are encoded with.
        width: of its embeddings.
        layers: how many; pipelines read some of them.
    """
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=8192,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return finished(Gemma2Model(config))


def tiny_bert_encoder(tokenizer: Any, *, width: int = 16) -> Any:
    """A `BertModel` for a tokenizer.

    Args:
        tokenizer: what its prompts are encoded with.
        width: of its embeddings.
    """
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    return finished(BertModel(config))


def tiny_vae(channels: Sequence[int] = VAE_CHANNELS, **special: Any) -> Any:
    """An `AutoencoderKL` of latents of `LATENT_SIDE`, by default of images `(3, IMAGE_SIDE, IMAGE_SIDE)`.

    Args:
        channels: of its levels, of which every one but the last halves an image's side.
        special: what differs between pipelines, such as `latent_channels` and `scaling_factor`.
    """
    from diffusers import AutoencoderKL

    levels = len(channels)
    return finished(
        AutoencoderKL(
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=4,
            sample_size=LATENT_SIDE * 2 ** (levels - 1),
            **special,
        )
    )
