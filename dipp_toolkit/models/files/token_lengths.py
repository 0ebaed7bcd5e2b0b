"""How many tokens a pipeline's tokenizers read where they do not say it, or say more than their text encoders can take.

A tokenizer without a `model_max_length` has one of 1e30, to which no stock pipeline can pad CLIP's tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...utils.plain_json import read_json

KEY = "model_max_length"
FILE = "tokenizer_config.json"


def readable(said: Any, positions: Any) -> int | None:
    """What a tokenizer is to say in place of `said`; None where that can stay.

    Args:
        said: its `model_max_length`.
        positions: tokens that its text encoder has places for; none for encoders of any length, such as T5.
    """
    fits = isinstance(said, int) and isinstance(positions, int) and 0 < said <= positions
    return None if fits or not isinstance(positions, int) else positions


def limit_tokens(tokenizer: Any, encoder: Any) -> None:
    """Give a loaded tokenizer a length that its text encoder can take."""
    length = None
    if tokenizer is not None:
        length = readable(tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None))
    if length is not None:
        tokenizer.model_max_length = length


def write_limit(folder: Path, tokenizer: str, encoder: str) -> None:
    """The same for the tokenizer in a pipeline's folder, so that the stock pipeline can pad to it.

    Args:
        folder: the pipeline's.
        tokenizer: the component's name.
        encoder: that of its text encoder.
    """
    from transformers import CLIPTextConfig

    config = read_json(folder / encoder / "config.json")
    if config.get("model_type") != CLIPTextConfig.model_type:
        return
    path = folder / tokenizer / FILE
    settings = read_json(path) if path.is_file() else {}
    length = readable(
        settings.get(KEY), config.get("max_position_embeddings", CLIPTextConfig().max_position_embeddings)
    )
    if length is not None:
        path.write_text(json.dumps(settings | {KEY: length}, indent=2) + "\n", encoding="utf-8")
