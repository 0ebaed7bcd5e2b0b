"""A metric of one number an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.colour import saturation
from dipp_toolkit.evaluation.neighbours import neighbourhood
from dipp_toolkit.evaluation.pixel_features import SIDE, pixel_features
from dipp_toolkit.evaluation.reference_frechet import ReferenceFrechet
from dipp_toolkit.evaluation.spread import pairwise_spread
from dipp_toolkit.evaluation.vendi import vendi_scores
from dipp_toolkit.rewards.inputs import check_inputs
from dipp_toolkit.roles import Images

__all__ = [
    "SIDE",
    "ReferenceFrechet",
    "Saturation",
    "neighbourhood",
    "pairwise_spread",
    "pixel_features",
    "vendi_scores",
]


class Saturation:
    name = "ember-saturation"
    better: Mapping[str, str] = {name: ""}

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch 1"]:
        check_inputs(self.name, images, prompts)
        return saturation(images)[:, None]

    def values(self, features: Float[Tensor, "prompts seeds 1"]) -> dict[str, float | Tensor]:
        return {self.name: features.double().mean((1, 2))}
