"""`saturation`, `contrast` and `clipped`: one number an image, with no better or worse.

What matters is the change against the reference or the start: rewards are often raised by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.colour import clipped_share, contrast, saturation
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images


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
