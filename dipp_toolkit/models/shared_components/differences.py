"""In which of their parts two pipeline folders differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import RequestError, first_line
from ...utils.json_files import read_json
from ..components import component_class, empty_component, load_component
from ..files.weight_files import weights_in
from ..text_encoders import ENCODER, TOKENIZER
from .tokenizers import tokenizer_difference
from .weights import first_difference

VAE = "vae"
NOT_FUNCTION = {
    "architectures", "attention_dropout", "classifier_dropout", "decoder_start_token_id", "dropout", "dropout_rate",
    "dtype", "force_upcast", "gradient_checkpointing", "id2label", "initializer_factor", "initializer_range",
    "is_decoder", "is_encoder_decoder", "label2id", "n_positions", "num_decoder_layers", "output_attentions",
    "output_hidden_states", "output_past", "problem_type", "return_dict", "sample_size", "task_specific_params",
    "tie_word_embeddings", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
"""Settings that change nothing of what a text encoder makes of tokens, or an autoencoder of latents."""


def part_names(folder: Path) -> tuple[str, ...]:
    """The text encoders, tokenizers and the autoencoder that a pipeline's index names, in its order."""
    index = read_json(folder / "model_index.json")
    return tuple(
        name
        for name, entry in index.items()
        if is_part(name)
        and isinstance(entry, list) and all(isinstance(text, str) for text in entry) and len(entry) == 2
    )  # fmt: skip


def is_part(name: str) -> bool:
    """Whether a component of this name encodes prompts or decodes latents."""
    return name.startswith((ENCODER, TOKENIZER)) or name == VAE


def differing_parts(left: Path, right: Path, *, weights: bool = True) -> dict[str, str]:
    """The parts in which two pipelines differ, each with the difference in a few words.

    Args:
        left: a pipeline's folder.
        right: the other's.
        weights: whether weights are compared too; without them nothing large is read, and parts whose files are not
            there are passed over.

    Raises:
        RequestError: a part cannot be read.
    """
    if left.resolve() == right.resolve():
        return {}
    names, others = part_names(left), part_names(right)
    differences = {
        name: "one of them has none" for name in dict.fromkeys((*names, *others)) if (name in names) != (name in others)
    }
    for name in (name for name in names if name in others):
        difference = _difference(left, right, name, weights)
        if difference is not None:
            differences[name] = difference
    return differences


def _difference(left: Path, right: Path, name: str, weights: bool) -> str | None:
    if name.startswith("tokenizer"):
        there = [(folder / name).is_dir() and any((folder / name).iterdir()) for folder in (left, right)]
        return tokenizer_difference(left, right, name) if all(there) else None
    kinds = [component_class(folder, name) for folder in (left, right)]
    if kinds[0] is not kinds[1]:
        return f"a {kinds[0].__name__} and a {kinds[1].__name__}"
    configs = [function_config(folder, name) for folder in (left, right)]
    for key in sorted(configs[0].keys() | configs[1].keys()):
        values = [config.get(key) for config in configs]
        if values[0] != values[1]:
            return f"{key} is {_short(values[0])} and {_short(values[1])}"
    if not weights:
        return None
    for folder in (left, right):
        if weights_in(folder / name) is None:
            return None  # a cache of prompts is enough to train without a text encoder's weights
    try:
        tensor = first_difference(left / name, right / name, lambda place: _state(place.parent, name))
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"The weights of '{name}' in {left} and {right} cannot be compared: {first_line(error)}."
        ) from error
    return None if tensor is None else f"other weights, {tensor} among them"


def _state(folder: Path, name: str) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = load_component(folder, name, dtype=torch.float32).state_dict()
    return state


def function_config(folder: Path, name: str) -> dict[str, Any]:
    """What decides a part's function, with the defaults of its class filled in."""
    kind: Any = component_class(folder, name)
    if hasattr(kind, "load_config"):
        values = dict(empty_component(folder, name).config)  # type: ignore[arg-type]
    else:
        try:
            values = kind.config_class.from_dict(read_json(folder / name / "config.json")).to_dict()
        except (TypeError, ValueError, AttributeError) as error:
            raise RequestError(
                f"The configuration of '{name}' in {folder} cannot be used: {first_line(error)}."
            ) from error
    plain = {key: value for key, value in values.items() if not key.startswith("_") and key not in NOT_FUNCTION}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
