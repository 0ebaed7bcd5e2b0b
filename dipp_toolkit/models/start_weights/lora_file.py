r"""A LoRA file as it was published: its tensors, with its own strength multiplied into them.

A layer's update is $s \frac{a}{r} B A$ with the scale $s$ that somebody asks for. Where a file says $a$ is up to its
layout: kohya's has a tensor `alpha` a layer, peft's a configuration beside the file, diffusers' metadata in its header,
and without any of these $a = r$. What is read here holds $\frac{a}{r} B$ in the place of $B$, in float32, so that
nothing that is done with it later has to know. (Where alphas differ within a kohya file, diffusers 0.42 gives all its
attention layers the most frequent one.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from ...errors import RequestError
from ...utils.content_digests import file_digest
from ...utils.json_files import read_json
from ...utils.messages import quoted, shown
from ...utils.tensor_files import read_state, tensors_of
from ..files.fetching import NotHere
from ..lora import FILES, PEFT_PREFIX
from .source import WeightSource

CONFIG = FILES[0]
USUAL_NAMES = ("pytorch_lora_weights.safetensors", FILES[1])
"""Of diffusers' and of peft's files, looked for where a folder or a repository is named."""
DOWN = re.compile(r"(?P<layer>.+?)(?P<end>\.lora_down\.weight|[._]lora\.down\.weight|\.lora_A\.weight|\.down\.weight)")
UP = re.compile(
    r"(?P<layer>.+?)(?P<end>\.lora_up\.weight|[._]lora\.up\.weight|\.lora_B\.weight|\.lora_B\.bias|\.up\.weight)"
)
ALPHA = ".alpha"
OTHER_METHODS = {
    "hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA in kohya's layout", "oft_": "OFT", "on_input": "IA3",
    "glora": "GLoRA", "lora_magnitude_vector": "DoRA",
}  # fmt: skip
"""By what stands in their keys: methods that are not LoRA, or that diffusers' loaders of these pipelines pass over."""
PATTERN = re.compile(r"\^?[\w.\\]*(\*[\w.\\]*){0,2}\$?")
"""Of the patterns that peft allows as names of layers, those that cannot take a long time to match."""
MOST_KEYS = 3
"""Keys that a message names."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file on this machine.

    Attributes:
        source: as it was typed, with its scale.
        path: where it is.
        config: peft's configuration beside it; None where there is none.
    """

    source: WeightSource
    path: Path
    config: Path | None = None

    @classmethod
    def find(cls, source: WeightSource) -> LoraFile:
        """The file from this machine, the hub's cache or the hub, with the configuration beside it.

        Raises:
            RequestError: it is not there, or a folder has no LoRA file of a usual name.
            NotHere: it would have to be fetched, and this is a dry run.
        """
        source = source if source.is_file else _usual_file(source)
        path = source.file()
        config = path.with_name(CONFIG)
        if source.hub is not None and path.name == FILES[1]:
            config = replace(source, inside=str(PurePosixPath(source.inside).with_name(CONFIG))).file()
        return cls(source, path, config if config.is_file() else None)

    @property
    def digests(self) -> list[str | None]:
        """Of the file and of its configuration."""
        return [file_digest(self.path), None if self.config is None else file_digest(self.config)]

    @property
    def name(self) -> str:
        """As it was typed, for messages."""
        return shown(self.source.text)

    def read(self) -> dict[str, Tensor]:
        """Its tensors in float32 by the file's own keys, each pair `(rank, in, ...)` and `(out, rank, ...)`.

        Raises:
            RequestError: it is damaged, holds no LoRA, or one of a method that cannot be fused.
        """
        tensors = {
            key: tensor for key, tensor in tensors_of(read_state(self.path), self.path).items() if tensor.numel()
        }
        for part, method in OTHER_METHODS.items():
            others = [key for key in tensors if part in key]
            if others:
                raise RequestError(
                    f"The LoRA {self.name} is a {method} ({len(others)} keys such as {_first(others)}), which cannot "
                    "be fused here. Fuse it with the program that it was made for, and name the result with weights=."
                )
        idle = [key for key in tensors if not _kind(key) and not bool(tensors[key].any())]  # some exporters add zeros
        tensors = {key: tensor for key, tensor in tensors.items() if key not in idle}
        others = [key for key in tensors if not _kind(key)]
        if not any(DOWN.fullmatch(key) for key in tensors):
            raise RequestError(
                f"{self.name} is not a LoRA: none of its {len(tensors) + len(idle)} tensors is one half of a pair such "
                f"as lora_A and lora_B, or lora_down and lora_up ({_first(others or idle or tensors)}). A whole "
                "network's weights are named with weights=."
            )
        if others:
            raise RequestError(
                f"The LoRA {self.name} has {len(others)} tensors that are not parts of a LoRA, such as "
                f"{_first(others)} of shape {tuple(tensors[others[0]].shape)}; what they would change cannot be fused."
            )
        tensors = {key: tensor.float() for key, tensor in tensors.items()}
        bad = [key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if bad:
            raise RequestError(f"The LoRA {self.name} has numbers that are not finite, in {_first(bad)}.")
        return self._with_strength(tensors)

    def _with_strength(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        ranks = {match["layer"]: len(tensors[key]) for key in tensors if (match := DOWN.fullmatch(key)) is not None}
        ups = [(key, match["layer"]) for key in tensors if (match := UP.fullmatch(key)) is not None]
        single = [*({layer for _, layer in ups} ^ ranks.keys())]
        if single:
            raise RequestError(
                f"The LoRA {self.name} is incomplete: of {len(single)} layers it has one half of the pair alone, such "
                f"as {_first(sorted(single))}."
            )
        strengths = self._strengths(ranks, tensors)
        for key, layer in ups:
            tensors[key] = tensors[key] * strengths.get(layer, 1.0)
        for key in [key for key in tensors if key.endswith(ALPHA)]:  # what follows needs no scaling
            layer = _layer_of_alpha(key, ranks)
            if layer is None:
                raise RequestError(
                    f"The LoRA {self.name} is incomplete: it has {shown(key)}, and no layer of that name."
                )
            tensors[key] = torch.tensor(float(ranks[layer]))
        return tensors

    def _strengths(self, ranks: Mapping[str, int], tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """a / r by layer; a layer that is not named has 1."""
        alphas = {key: tensor for key, tensor in tensors.items() if key.endswith(ALPHA)}
        wrong = [key for key, tensor in alphas.items() if tensor.numel() != 1]
        if wrong:
            raise RequestError(
                f"The LoRA {self.name} has {_first(wrong)} of shape {tuple(alphas[wrong[0]].shape)}; expected a number."
            )
        named = {_layer_of_alpha(key, ranks): float(tensor) for key, tensor in alphas.items()}
        scales = {layer: alpha / ranks[layer] for layer, alpha in named.items() if layer is not None}
        if scales:
            return scales
        # Under another name and without its prefix a file stands beside peft's configuration by accident.
        if self.config is not None and (
            self.path.name == FILES[1] or any(key.startswith(PEFT_PREFIX) for key in tensors)
        ):
            settings = read_json(self.config)
            if settings.get("peft_type") != "LORA" or settings.get("use_dora"):
                kind = "DoRA" if settings.get("use_dora") else settings.get("peft_type")
                raise RequestError(f"{self.config} describes an adapter of the kind {quoted(kind)}; expected a LoRA.")
            return {layer: _strength(settings, layer, rank, self.name) for layer, rank in ranks.items()}
        return self._strengths_of_header(ranks)

    def _strengths_of_header(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """From what diffusers notes in a file's header, by component; nothing where it notes nothing."""
        from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
        from safetensors import safe_open

        if self.path.suffix != ".safetensors":
            return {}
        with safe_open(self.path, framework="pt") as file:
            text = (file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
        if text is None:
            return {}
        try:
            noted = json.loads(text)
            if not isinstance(noted, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError) as error:
            raise RequestError(
                f"The LoRA {self.name} has a damaged {LORA_ADAPTER_METADATA_KEY} in its header."
            ) from error
        strengths = {}
        for layer, rank in ranks.items():
            component, _, inner = layer.partition(".")
            own = {
                key.removeprefix(f"{component}."): value
                for key, value in noted.items()
                if key.startswith(f"{component}.")
            }
            strengths[layer] = (
                _strength(own, inner, rank, self.name) if own else _strength(noted, layer, rank, self.name)
            )
        return strengths


def _usual_file(source: WeightSource) -> WeightSource:
    """The file of a folder or repository."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    problem: RequestError | None = None
    for name in USUAL_NAMES:
        candidate = _inner(source, name)
        try:
            candidate.file()
        except NotHere:
            raise
        except RequestError as error:
            cause = error.__cause__
            if source.hub and (isinstance(cause, LocalEntryNotFoundError) or not isinstance(cause, EntryNotFoundError)):
                raise  # the listing of the repository is unavailable
            problem = problem or error
        else:
            return candidate
    raise RequestError(
        f"'{shown(source.text)}' has no LoRA file of a usual name ({' or '.join(USUAL_NAMES)}); name the file, as in "
        f"{shown(source.text)}{':' if source.hub and not source.inside else '/'}file.safetensors. ({problem})"
    ) from problem


def _inner(source: WeightSource, name: str) -> WeightSource:
    """A file inside a folder or repository."""
    if source.hub is None:
        return replace(source, text=str(Path(source.text) / name))
    separator = "/" if source.inside else ":"
    return replace(source, text=f"{source.text}{separator}{name}", inside=str(PurePosixPath(source.inside) / name))


def _kind(key: str) -> bool:
    """Whether a key is of a LoRA's pair, or its alpha."""
    return key.endswith(ALPHA) or DOWN.fullmatch(key) is not None or UP.fullmatch(key) is not None


def _first(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(shown(key) for key in keys[:MOST_KEYS]) + (", ..." if len(keys) > MOST_KEYS else "")


def _layer_of_alpha(key: str, layers: Mapping[str, int]) -> str | None:
    layer = key.removesuffix(ALPHA)
    return layer if layer in layers else None


def _strength(settings: Mapping[str, Any], layer: str, rank: int, name: str) -> float:
    """a / r of a layer by peft's settings, whose patterns are the ends of layers' names; 1 where they say nothing."""
    if "r" not in settings:
        return 1.0
    values = {}
    for key, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        named = settings.get(patterns) or {}
        if not isinstance(named, dict) or not all(map(PATTERN.fullmatch, named)):
            raise RequestError(f"The LoRA {name} has {quoted(named)} as its {patterns}; expected names of layers.")
        fits = (
            value
            for pattern, value in named.items()
            if re.match(rf"(.*\.)?({pattern})$", layer.removeprefix(PEFT_PREFIX))
        )
        values[key] = next(fits, settings.get(key))
    alpha = values["lora_alpha"]
    if not isinstance(alpha, int | float) or values["r"] != rank:
        raise RequestError(
            f"The LoRA {name} says r={quoted(values['r'])} and lora_alpha={quoted(alpha)} of {shown(layer)}, whose "
            f"rank is {rank}; expected this rank, and a number."
        )
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)
