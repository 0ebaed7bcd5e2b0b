"""Which files of a hub's repository are fetched: those that are loaded or exported, each weight once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from .weight_files import PICKLE, choose_weights, is_weights

INDEX = "model_index.json"
JOINED = "+"
"""Stands in a name between a pipeline and the network that takes the place of its own."""
CARD = "README.md"
"""The model card, which says the licence."""
SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of configurations and of a tokenizer's files."""
NOT_NEEDED = ("safety_checker", "image_encoder")
"""Components that no prompt and no latent goes through; an export is made without them."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def pipeline_files(listing: Iterable[str], index: Mapping[str, Any], extra: Sequence[str] = ()) -> list[str]:
    """The files of a pipeline's repository that are needed.

    Args:
        listing: names of all its files.
        index: what its `model_index.json` says.
        extra: folders beside the components', such as that of an assistant.

    Returns:
        The index, the model card, of every component its configuration and one set of weights: plain ones, else a
        variant, else `.bin` files where there is nothing else.
    """
    names = list(listing)
    components = [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] and not name.startswith("_")
    ]
    needed = [INDEX, *({CARD} & set(names))]
    for component in (*components, *extra):
        if component not in NOT_NEEDED:
            needed += network_files(names, component)
    return needed


def network_files(listing: Iterable[str], folder: str) -> list[str]:
    """The files of one component's folder that are needed; none where the folder is not listed.

    Args:
        listing: names of all files of the repository.
        folder: in it; empty for the repository itself.
    """
    places = [PurePosixPath(name) for name in listing]
    inside = [place.name for place in places if place.parent == PurePosixPath(folder)]
    weights = choose_weights(inside) or choose_weights(inside, PICKLE)
    chosen = set(ADAPTER) | (set() if weights is None else set(weights.names))
    needed = [
        name for name in inside if name in chosen or (name.endswith(SMALL) and not is_weights(name) and _is_of_us(name))
    ]
    return [str(PurePosixPath(folder, name)) for name in needed]


def _is_of_us(name: str) -> bool:
    """Whether a small file belongs to the torch models; of others' exports beside them it does not."""
    return not name.startswith(("openvino", "flax", "tf_", "onnx")) and name != INDEX
