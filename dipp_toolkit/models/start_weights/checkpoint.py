"""A file of a network's weights as somebody published it: its tensors under the network's own names, where they fit.

Training scripts wrap what they save (`state_dict`, `model`, an average beside it) and put a name before every tensor
(`module.`). Both are taken off here; what then fits the network is its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Size, Tensor

from ...errors import RequestError, first_line
from ...utils.messages import shown
from ...utils.tensor_files import read_state

Shapes = Mapping[str, tuple[int, ...]]
DEEPEST = 3
"""Wrappings around a state dict."""
MOST_NAMES = 3
"""Tensors of a kind that a message names."""


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors under the names of a network.

    Attributes:
        path: the file.
        tensors: by the network's names, without what stood before each of them; those that stood elsewhere left out.
        content: all tensors that were saved together, under the names in the file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    content: Mapping[str, Tensor]

    @property
    def shapes(self) -> Shapes:
        """Of the tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def read_checkpoint(path: Path, expected: Shapes) -> Checkpoint:
    """The tensors of a file that fit a network best.

    Args:
        path: safetensors, or a pickled state dict, of which nothing but tensors is read (`weights_only=True`).
        expected: the network's tensors.

    Raises:
        RequestError: the file is damaged, holds no tensors, or would run code when it is read.
    """
    checkpoints = [_renamed(path, tensors, expected) for tensors in _states(read_state(path))]
    if not checkpoints:
        raise RequestError(f"{path} holds no tensors; expected the weights of a network.")

    def fit(checkpoint: Checkpoint) -> tuple[int, int]:
        return sum(checkpoint.shapes.get(name) == shape for name, shape in expected.items()), len(checkpoint.content)

    return max(checkpoints, key=fit)


def _states(content: Mapping[Any, Any], depth: int = 0) -> Iterator[dict[str, Tensor]]:
    """Every group of named tensors, the outer ones first; an average (`ema`) comes after what it is the average of."""
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors
    inner = {name: value for name, value in named.items() if isinstance(value, Mapping)}
    for name in sorted(inner, key=lambda key: ("ema" in key.lower(), key != "state_dict")):
        if depth < DEEPEST:
            yield from _states(inner[name], depth + 1)


def _renamed(path: Path, tensors: Mapping[str, Tensor], expected: Shapes) -> Checkpoint:
    """The tensors without what stands before the most of the network's names; what stands elsewhere is left out."""
    prefixes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in expected:
                prefixes["".join(f"{part}." for part in parts[:cut])] += 1
    prefix = max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)), default="")
    inside = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Checkpoint(path, inside, tensors)


def misfit(given: Shapes, expected: Shapes) -> str:
    """What is missing, what is left over and what has another shape, in a clause each; empty where all fits.

    Args:
        given: tensors' names and shapes.
        expected: those of the network.
    """
    missing = {name: shape for name, shape in expected.items() if name not in given}
    unexpected = {name: shape for name, shape in given.items() if name not in expected}
    other = {name: shape for name, shape in given.items() if name in expected and shape != expected[name]}
    clauses = []
    if missing:
        clauses.append(f"{len(missing)} of {len(expected)} tensors are missing, such as {_named(missing)}")
    if other:
        name = next(iter(other))
        clauses.append(
            f"{len(other)} have another shape, such as '{shown(name)}' with {other[name]} for {expected[name]}"
        )
    if unexpected:
        clauses.append(f"{len(unexpected)} belong to no part of it, such as {_named(unexpected)}")
    return "; ".join(clauses)


def _named(shapes: Shapes) -> str:
    return ", ".join(f"'{shown(name)}' {tuple(shapes[name])}" for name in list(shapes)[:MOST_NAMES])


def shapes_of_files(place: Path, files: tuple[str, ...]) -> Shapes:
    """The names and shapes in safetensors, from their headers.

    Args:
        place: the folder they lie in.
        files: their names.

    Raises:
        RequestError: one is damaged.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(place / file, "pt") as opened:
                shapes |= {name: tuple(Size(opened.get_slice(name).get_shape())) for name in opened.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors has an error of its own, and the disk's
            raise RequestError(f"{place / file} is damaged or not a file of weights: {first_line(error)}.") from error
    return shapes
