"""`precision-recall`: fidelity and variety against a folder of real images, by nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.precision_recall import neighbour_radii, neighbourhood

from .reference_set import AgainstFolder


class PrecisionRecall(AgainstFolder):
    """Precision, recall, density and coverage; see `dipp_toolkit.evaluation.precision_recall`.

    Precision and density are means over made images, and so have a value for every prompt. Recall and coverage belong
    to the set; prompts drawn twice hold no new image, so a bootstrap draws them a little low.

    Args:
        images: a folder of real images.
        features: `inception`, `clip:MODEL`, `pixels` or `file.py:function`.
        k: neighbours that make a ball.
        weights: a local file of Inception's weights.

    Raises:
        RequestError: the folder or the features cannot be used, or k is below 1.
    """

    better: Mapping[str, str] = dict.fromkeys(("precision", "recall", "density", "coverage"), "higher")

    def __init__(self, images: str = "", features: str = "inception", k: int = 5, weights: str = ""):
        super().__init__("precision-recall", images, features, weights, least=k + 1)
        self.k = k

    @cached_property
    def real_radii(self) -> Float[Tensor, " images"]:
        """Of the balls around the real images."""
        return neighbour_radii(self.real, self.k)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`precision` and `density` `(P,)`, `recall` and `coverage`; all in [0, 1] but density, which may exceed 1.

        Raises:
            RequestError: there are not more than k made images.
        """
        found = neighbourhood(self.real, self.rows(features), self.k, self.real_radii)
        shape = features.shape[:2]
        return {
            "precision": found.precise.reshape(shape).mean(1),
            "recall": found.recall,
            "density": found.dense.reshape(shape).mean(1),
            "coverage": found.coverage,
        }
