"""The images of a fit: prepared one at a time, and what a network sees of them kept in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...rewards.preprocess import Preprocess
from ...rewards.text_features import TextFeatures
from ..pair import Candidate
from .backbone import Backbone
from .scorer import FittedScorer

CHUNK = 32
"""Images that a network sees at a time."""


def pixels_of(images: Sequence[Candidate], preprocess: Preprocess) -> Float[Tensor, "batch 3 size size"]:
    """Prepared images, read from their places, as a reward prepares them when it scores without a gradient.

    Raises:
        RequestError: one is missing or damaged.
    """
    return torch.cat([preprocess(image.picture.read()[None].float()) for image in images])


@torch.no_grad()
def texts_of(
    scorer: FittedScorer, images: Sequence[Candidate], backbone: Backbone, device: torch.device
) -> Float[Tensor, "images embedding"]:
    """The embedding of each image's prompt, encoded as the finished reward encodes it."""
    read = TextFeatures(lambda prompts: scorer.read(backbone.ids(prompts).to(device)).cpu())
    return read([image.prompt for image in images])


@torch.no_grad()
def features_of(
    see: Callable[[Tensor], Tensor],
    images: Sequence[Candidate],
    preprocess: Preprocess,
    device: torch.device,
    progress: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "images features"]:
    """What a network sees of each image, on the host.

    Args:
        see: of prepared pixels.
        images: to be read.
        preprocess: of the network.
        device: where it is.
        progress: told how many images were seen.

    Raises:
        RequestError: an image is missing or damaged.
    """
    rows = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        rows.append(see(pixels_of(part, preprocess).to(device)).cpu())
        progress(len(part))
    return torch.cat(rows)
