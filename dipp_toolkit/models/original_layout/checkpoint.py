"""A pipeline's folder as one file in the original layout: which parts it holds, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import RequestError
from ...utils.json_files import read_json
from ..components import load_component
from ..family import OriginalLayout, PipelineFamily
from .autoencoder import original_autoencoder
from .text_encoders import PROJECTION, RENAMED, Kind

AUTOENCODER = "AutoencoderKL"


@dataclass(frozen=True)
class Encoder:
    """Where a checkpoint has a text encoder.

    Attributes:
        prefix: what its names begin with.
        kind: whose names they are.
        projects: whether diffusers reads a projection of the pooled embedding from there; of Stable Diffusion 3's first
            one it takes the identity, which the published one is.
    """

    prefix: str
    kind: Kind
    projects: bool = True


@dataclass(frozen=True)
class CheckpointLayout:
    """Where a checkpoint of one file has the parts of a pipeline.

    Attributes:
        network: what the network's names begin with.
        vae: the same of the autoencoder; None where the file is of the network alone.
        encoders: text encoders by component.
    """

    network: str
    vae: str | None = None
    encoders: Mapping[str, Encoder] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline's weights as one file has them.

    Attributes:
        tensors: by their original names.
        beside: components that whoever loads the file brings, with the reason, a clause that begins with a verb.
        t5: components in it that are T5.
    """

    tensors: dict[str, Tensor]
    beside: dict[str, str]
    t5: tuple[str, ...] = ()


def original_family(family: PipelineFamily, folder: Path) -> OriginalLayout:
    """The family, where it knows an original layout.

    Raises:
        RequestError: it knows none.
    """
    if isinstance(family, OriginalLayout):
        return family
    raise RequestError(
        f"The plugin of {read_json(folder / 'model_index.json').get('_class_name')} knows no checkpoint of one file. "
        f"Use {folder} itself, which diffusers loads, or --to lora."
    )


def original_checkpoint(folder: Path, family: PipelineFamily, dtype: torch.dtype) -> Checkpoint:
    """A pipeline's tensors under their original names.

    Args:
        folder: the pipeline's.
        family: of its class.
        dtype: of the tensors.

    Raises:
        RequestError: the family knows no such layout, or the network has layers that it has no name for.
    """
    owner = original_family(family, folder)
    layout = owner.original_layout(folder)
    network = owner.to_original_names(load_component(folder, family.network_name))
    tensors = _ready(network, layout.network, dtype)
    beside: dict[str, str] = {}
    index = read_json(folder / "model_index.json")
    if layout.vae is None:
        beside["vae"] = "is a file of its own in this layout"
    elif index["vae"][1] != AUTOENCODER:
        beside["vae"] = f"is an {index['vae'][1]}, which no checkpoint of this layout holds"
    else:
        tensors |= autoencoder_tensors(folder, layout.vae, dtype)
    for name in (name for name, entry in index.items() if name.startswith("text_encoder") and any(entry)):
        encoder = layout.encoders.get(name)
        if encoder is None:
            beside[name] = "is a file of its own in this layout"
            continue
        own = load_component(folder, name).state_dict()
        projection = own.get(PROJECTION)
        if not encoder.projects and projection is not None and not torch.equal(projection, torch.eye(len(projection))):
            beside[name] = "projects its pooled embedding, where diffusers takes the identity for one in a file"
        tensors |= _ready(RENAMED[encoder.kind](own), encoder.prefix, dtype)
    t5 = tuple(name for name, encoder in layout.encoders.items() if encoder.kind == "t5" and any(index.get(name) or ()))
    return Checkpoint(tensors, beside, t5)


def autoencoder_tensors(folder: Path, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """A pipeline's `AutoencoderKL` under its original names."""
    return _ready(original_autoencoder(load_component(folder, "vae").state_dict()), prefix, dtype)


def encoder_tensors(folder: Path, name: str, kind: Kind, dtype: torch.dtype) -> dict[str, Tensor]:
    """A pipeline's text encoder as a file of its own has it."""
    return _ready(RENAMED[kind](load_component(folder, name).state_dict()), "", dtype)


def _ready(tensors: Mapping[str, Any], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Below a prefix, in a dtype, and each with memory of its own, which safetensors asks for."""
    return {
        f"{prefix}{name}": tensor.detach()
        .to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        .contiguous()
        for name, tensor in tensors.items()
    }
