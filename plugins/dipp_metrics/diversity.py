"""`diversity`: how far a prompt's images lie from each other, in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.pixel_features import SIDE, pixel_features
from dipp_toolkit.evaluation.spread import pairwise_spread
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images


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
