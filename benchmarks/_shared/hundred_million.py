"""A PixArt-alpha pipeline of 96 M parameters with random weights: large enough that memory and matrix products count.

Its transformer is the published one with 11 of 28 layers and 10 of 16 heads, and latents of 32x32 in 256 tokens. Its
text encoder has the sizes of T5 1.1 small: 19 M parameters in place of T5-XXL's 4.7 billion. Its decoder is an
`AutoencoderTiny` of TAESD's sizes, to 256x256 pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

TOKENS, TEXT_WIDTH, BATCH = 120, 512, 4
LAYERS, HEADS = 11, 10
SETTINGS: dict[str, Any] = {
    "rewards": {"emoji-preference": 1.0, "emoji-clip": 0.02},
    "eval_count": 2,
    "long_prompts": "cut",
    "readout": 0.4,
    "batch_size": BATCH,
    "guidance": 4.5,
    "precision": "bf16",
    "steps": 1000,
}
"""Of a training on it, as published pipelines of this class have them; the rewards are the emoji world's, which take
images of any size."""


def write_prompts(path: Path) -> Path:
    """Write a file with the prompts of one batch: their embeddings, which a training holds, do not count then."""
    from dipp_toolkit import load_prompts

    chosen = [prompt.text for prompt in load_prompts("emoji-train").prompts[:BATCH]]
    path.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return path


def write_pipeline(folder: Path, seed: int = 0) -> Path:
    """Write the pipeline, once: a folder that is there already is left as it is."""
    if folder.exists():
        return folder
    from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.models.files.folders import quiet_loading
    from dipp_toolkit.models.tiny_pipelines import drawn_from, finished
    from dipp_toolkit.models.tiny_tokenizers import tiny_t5_tokenizer
    from dipp_toolkit.utils.json_files import read_json

    published = find_pipeline("pixart-alpha").folder
    network = {key: value for key, value in read_json(published / "transformer/config.json").items() if key[0] != "_"}
    network |= {"num_layers": LAYERS, "num_attention_heads": HEADS, "sample_size": 32, "caption_channels": TEXT_WIDTH}
    network |= {"cross_attention_dim": HEADS * network["attention_head_dim"]}
    encoder = T5Config(
        vocab_size=512, d_model=TEXT_WIDTH, d_kv=64, d_ff=1024, num_layers=8, num_heads=6,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, tie_word_embeddings=False,
    )  # fmt: skip
    with drawn_from(seed), quiet_loading(), torch.no_grad():
        parts = (
            tiny_t5_tokenizer(TOKENS),
            T5EncoderModel(encoder).eval(),
            AutoencoderTiny().eval(),
            finished(PixArtTransformer2DModel(**network)),
            DPMSolverMultistepScheduler(**json.loads((published / "scheduler/scheduler_config.json").read_text())),
        )
        beside = folder.with_name(f".{folder.name}.partial")
        PixArtAlphaPipeline(*parts).save_pretrained(beside)
    beside.rename(folder)
    return folder
