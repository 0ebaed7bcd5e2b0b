"""Blueprints: published models without their weights.

A pipeline's blueprint is its folder of configurations, as published. From it come the real architectures, on the meta
device to count and to plan with, or with random weights to run at full size; no byte is downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import RequestError
from ..registry import get_registry
from ..utils.image_sizes import Size
from ..utils.json_files import read_json
from .components import component_class
from .family import PipelineFamily
from .files.folders import family_of, quiet_loading, read_scheduler_config
from .reference import latent_shape_of
from .tiny_pipelines import drawn_from


@dataclass(frozen=True)
class PipelineBlueprint:
    """A published pipeline without its weights.

    Attributes:
        folder: `model_index.json`, `<component>/config.json` and `scheduler/scheduler_config.json`, as published.
        hub: where its weights are: a hub id, a folder or a registered name.
        shrink: by what the sides of its images are divided.
        size: height and width of its latents, where these are not what its configuration says.
    """

    folder: Path
    hub: str
    shrink: int | Fraction = 1
    size: Size | None = None

    @property
    def family(self) -> PipelineFamily:
        """What is particular to the pipeline's class."""
        return family_of(self.folder)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent.

        Raises:
            RequestError: the configurations do not give it.
        """
        own = latent_shape_of(self.folder, self.family, self.shrink)
        return own if self.size is None else (own[0], *self.size)

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoders' names."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("text_encoder*/config.json")))

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The published scheduler's configuration."""
        return read_scheduler_config(self.folder)

    def build(self, component: str, **changes: Any) -> nn.Module:
        """A network of the published architecture on the default device; there, its weights are random.

        Under `torch.device("meta")` or a `FakeTensorMode` it costs no memory.

        Args:
            component: its name.
            changes: of its configuration.

        Raises:
            RequestError: the pipeline has no such component.
        """
        kind: Any = component_class(self.folder, component)
        config = read_json(self.folder / component / "config.json") | changes
        if hasattr(kind, "load_config"):
            with quiet_loading():
                return cast(nn.Module, kind.from_config(config))
        return cast(nn.Module, kind(kind.config_class(**config)))

    def write(
        self, folder: Path, components: Sequence[str], *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Path:
        """Write a pipeline folder with random weights. It appears whole or not at all.

        Args:
            folder: where to; must not exist.
            components: those that get weights, built one at a time; the others keep their configuration alone.
            seed: of the weights.
            dtype: the weights are stored in.

        Returns:
            `folder`.

        Raises:
            RequestError: the folder exists, or there is no such component.
        """
        if folder.exists():
            raise RequestError(f"The folder {folder} already exists; name another one.")
        beside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            shutil.copytree(self.folder, beside)
            for component in components:
                with drawn_from(seed), quiet_loading():
                    network: Any = self.build(component).to(dtype)
                network.save_pretrained(beside / component)
                del network
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return folder


@dataclass(frozen=True)
class RewardBlueprint:
    """A published reward model without its weights.

    Attributes:
        hub: where its weights are.
        build: makes the network on the default device, with random weights; called with images in [0, 1] of any size,
            `(batch, 3, height, width)`, it gives scores, `(batch,)`.
    """

    hub: str
    build: Callable[[], nn.Module]


def find_blueprint(name: str) -> PipelineBlueprint | RewardBlueprint:
    """The blueprint of a generator, a reference or a reward by name.

    Raises:
        RequestError: no plugin has one.
    """
    blueprint: PipelineBlueprint | RewardBlueprint = get_registry().find("blueprint", name).build()
    return blueprint


def find_pipeline(name: str) -> PipelineBlueprint:
    """The blueprint of a generator or a reference by name.

    Raises:
        RequestError: no plugin has one, or it is a reward's.
    """
    blueprint = find_blueprint(name)
    if not isinstance(blueprint, PipelineBlueprint):
        raise RequestError(f"'{name}' is a reward; expected a generator or a reference.")
    return blueprint


def parameter_count(network: nn.Module) -> int:
    """Number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in network.parameters())
