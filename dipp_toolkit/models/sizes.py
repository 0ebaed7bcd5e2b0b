"""Which sizes of images a pipeline can draw, in latents and in the words of its stock call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..utils.image_sizes import Size, parse_aspect, parse_sizes, size_text, sizes_text
from ..utils.json_files import read_json
from ..utils.messages import quoted
from .autoencoding import autoencoding_of
from .buckets import buckets
from .family import PipelineFamily, SizeLimits
from .files.download_lists import INDEX
from .files.folders import component_config
from .files.safety import stock_pipeline
from .stock_call import stock_call_of

RECORD = "_image_sizes"
"""Where `model_index.json` holds the sizes that a generator was trained at, as `1152x896,1024x1024`, the first one
drawn where none is named. The name begins with an underscore, so that diffusers passes over it."""
STOCK_MULTIPLE = 8
"""Pixels that stock pipelines want both sides of an image to be multiples of, whatever their autoencoder is."""
MOST_NUMBERS = 2**26
"""In one latent; an image of 8192 pixels a side has 16 channels of 1024 by 1024, a quarter of it."""


@dataclass(frozen=True)
class SizeRules:
    """What the sides of a pipeline's latents have to be.

    Attributes:
        multiple: latents that both sides are multiples of.
        most: latents that no side exceeds, where the network has a table of places; None for no such limit.
        call_pixels: pixels of a latent's side in the stock pipeline's call, where these are not the autoencoder's.
    """

    multiple: int
    most: int | None = None
    call_pixels: int | None = None


def usual_rules(family: PipelineFamily, network: Mapping[str, Any], pixels: int) -> SizeRules:
    """The rules of most networks: whole patches, or as many halvings as a UNet has, and what stock calls want.

    Args:
        family: of the pipeline.
        network: its network's configuration.
        pixels: of a latent's side.
    """
    patch = network.get("patch_size")
    multiple = math.lcm(stock_call_of(family).patch or 1, patch if isinstance(patch, int) and patch > 0 else 1)
    levels = network.get("down_block_types")
    if isinstance(levels, Sequence) and not isinstance(levels, str) and levels:
        multiple = math.lcm(multiple, 2 ** (len(levels) - 1))
    return SizeRules(math.lcm(multiple * pixels, STOCK_MULTIPLE) // pixels)


def rules_of(folder: Path, family: PipelineFamily) -> SizeRules:
    """The rules of a pipeline's folder; a family may have its own.

    Raises:
        RequestError: its configurations cannot be read.
    """
    network, pixels = component_config(folder, family.network_name), pixels_of(folder, family)
    usual = usual_rules(family, network, pixels)
    return family.size_rules(network, pixels, usual) if isinstance(family, SizeLimits) else usual


def pixels_of(folder: Path, family: PipelineFamily) -> int:
    """Pixels of a latent's side."""
    return autoencoding_of(family).pixels_per_latent(read_json(folder / "vae" / "config.json"))


def in_pixels(folder: Path, family: PipelineFamily, sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Sizes of latents as sizes of images."""
    pixels = pixels_of(folder, family)
    return tuple((height * pixels, width * pixels) for height, width in sizes)


def in_latents(folder: Path, family: PipelineFamily, size: Size) -> Size:
    """The size of an image as that of its latents.

    Args:
        folder: the pipeline's.
        family: of its class.
        size: height and width in pixels.

    Raises:
        RequestError: the pipeline cannot draw images of this size.
    """
    rules, pixels = rules_of(folder, family), pixels_of(folder, family)
    unit = rules.multiple * pixels
    if any(side % unit or not side for side in size):
        height, width = (unit * max(1, round(side / unit)) for side in size)
        raise RequestError(
            f"{folder} draws no images of {size_text(size)} pixels: both sides are multiples of {unit}. Ask for "
            f"{size_text((height, width))}."
        )
    latents = size[0] // pixels, size[1] // pixels
    if rules.most is not None and max(latents) > rules.most:
        raise RequestError(
            f"{folder} draws no images of {size_text(size)} pixels: its network has places for {rules.most * pixels} "
            f"pixels a side. Ask for a smaller resolution, or for aspects nearer to a square."
        )
    channels = autoencoding_of(family).latent_channels(read_json(folder / "vae" / "config.json"))
    if channels * math.prod(latents) > MOST_NUMBERS:
        raise RequestError(
            f"Images of {size_text(size)} pixels are too large; expected {MOST_NUMBERS:,} numbers in a latent at most."
        )
    return latents


def asked_sizes(
    folder: Path, family: PipelineFamily, own: Sequence[int], resolution: int | None, aspects: Sequence[str]
) -> tuple[Size, ...]:
    """The sizes of latents that a run's settings ask for, the first one first; none where they ask for none.

    Args:
        folder: the pipeline's.
        family: of its class.
        own: the shape of its latents as its configuration has it, whose area is that of all where no resolution is
            named.
        resolution: side in pixels of a square of their area.
        aspects: such as `"4:3"`; a square where there are none.

    Raises:
        RequestError: the pipeline cannot draw images of such a size.
    """
    if resolution is None and not aspects:
        return ()
    pixels = pixels_of(folder, family)
    side = float(resolution or pixels * math.sqrt(own[-2] * own[-1]))
    unit = rules_of(folder, family).multiple * pixels
    if side < unit / 2:
        raise RequestError(
            f"A resolution of {side:g} is too small for {folder}, whose images have sides of {unit} pixels and "
            f"multiples of it. Set resolution to {unit} or more."
        )
    ratios = [parse_aspect(aspect) for aspect in aspects] or [(1, 1)]
    return tuple(in_latents(folder, family, size) for size in buckets(side, ratios, unit))


def recorded_sizes(folder: Path, family: PipelineFamily) -> tuple[Size, ...]:
    """The sizes of latents that a folder's generator was trained at; none where its `model_index.json` has no record.

    Raises:
        RequestError: the record is damaged, or the pipeline cannot draw such a size.
    """
    text = read_json(folder / INDEX).get(RECORD)
    if text is None:
        return ()
    try:
        sizes = parse_sizes(text if isinstance(text, str) else "")
    except RequestError as error:
        raise RequestError(
            f"{folder / INDEX} has {RECORD}={quoted(text)}; expected sizes in pixels, as in 1152x896,1024x1024."
        ) from error
    return tuple(in_latents(folder, family, size) for size in sizes)


def recorded_text(folder: Path, family: PipelineFamily, sizes: Sequence[Size]) -> str:
    """Sizes of latents as `model_index.json` records them."""
    return sizes_text(in_pixels(folder, family, sizes))


def call_size(folder: Path, family: PipelineFamily, latents: Size) -> dict[str, Any]:
    """Arguments of the stock pipeline's call with which it draws images of these latents, unrounded.

    Args:
        folder: the pipeline's.
        family: of its class.
        latents: height and width.
    """
    pixels = rules_of(folder, family).call_pixels or pixels_of(folder, family)
    height, width = (side * pixels for side in latents)
    call: Any = stock_pipeline(read_json(folder / INDEX))
    rounds = call is not None and "use_resolution_binning" in inspect.signature(call.__call__).parameters
    return {"height": height, "width": width} | ({"use_resolution_binning": False} if rounds else {})
