"""`vendi`: how many different images a prompt has, in effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.vendi import vendi_scores
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images

from .extractors import load_extractor


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
