"""Metrics that need no other images: `diversity`, `vendi`, and the colour of single images.

What matters of `saturation`, `contrast` and `clipped` is the change against the reference or the start, so neither
direction is better: rewards are often raised by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.colour import clipped_share, contrast, saturation
from dipp_toolkit.evaluation.diversity import SIDE, pairwise_spread, pixel_features, vendi_scores
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images

from .extractors import load_extractor


class Diversity:
    """Root mean square difference of two images of a prompt, averaged over pairs; in [0, 1].

    Images are averaged over areas first where they are larger than `side` pixels. Up to that size its mean over prompts
    is `dipp_toolkit.evaluation.diversity.seed_diversity`.

    Args:
        side: the largest side that is compared as it is.
    """

    better: Mapping[str, str] = {"diversity": "higher"}
    needs_seeds = True

    def __init__(self, side: int = SIDE):
        self.side = side

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """The pixels, float32; prompts do not matter."""
        check_inputs("diversity", images, prompts)
        return pixel_features(images, self.side)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"diversity": (P,)}`.

        Raises:
            RequestError: there is one image a prompt.
        """
        return {"diversity": pairwise_spread(features)}


class Vendi:
    """The Vendi score over the noises of each prompt, cosine kernel; from 1 to the number of noises.

    Friedman and Dieng 2022, arXiv 2210.02410. Pixels need nothing, but are all alike where a background is shared; with
    `clip:MODEL` the score is about what is shown.

    Args:
        features: `pixels`, `clip:MODEL`, `inception` or `file.py:function`.
        weights: a local file of Inception's weights.

    Raises:
        RequestError: the features cannot be loaded.
    """

    better: Mapping[str, str] = {"vendi": "higher"}
    needs_seeds = True

    def __init__(self, features: str = "pixels", weights: str = ""):
        self.extractor = load_extractor(features, weights)

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """Features of each image, float32; prompts do not matter."""
        check_inputs("vendi", images, prompts)
        return self.extractor(images)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"vendi": (P,)}`.

        Raises:
            RequestError: there is one image a prompt.
        """
        return {"vendi": vendi_scores(features)}


class OneNumber:
    """A metric that is the mean of one number an image."""

    name: ClassVar[str]

    def measure(self, images: Images) -> Float[Tensor, " batch"]:
        """The number of each image."""
        raise NotImplementedError

    @property
    def better(self) -> Mapping[str, str]:
        return {self.name: ""}

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch 1"]:
        """The number of each image, float32; prompts do not matter."""
        check_inputs(self.name, images, prompts)
        return self.measure(images)[:, None]

    def values(self, features: Float[Tensor, "prompts seeds 1"]) -> dict[str, float | Tensor]:
        """Its mean over the noises of each prompt, `(P,)`."""
        return {self.name: features.double().mean((1, 2))}


class Saturation(OneNumber):
    """Mean saturation of the HSV colour model, in [0, 1]."""

    name = "saturation"

    def measure(self, images: Images) -> Float[Tensor, " batch"]:
        return saturation(images)


class Contrast(OneNumber):
    """Standard deviation of the luma over an image, in [0, 0.5]."""

    name = "contrast"

    def measure(self, images: Images) -> Float[Tensor, " batch"]:
        return contrast(images)


class Clipped(OneNumber):
    """Share of pixels of which a channel is at an end of its range, in [0, 1]."""

    name = "clipped"

    def measure(self, images: Images) -> Float[Tensor, " batch"]:
        return clipped_share(images)
