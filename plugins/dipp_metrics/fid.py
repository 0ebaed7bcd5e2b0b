"""`fid`: the Frechet (inception) distance to a folder of real images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.evaluation.reference_frechet import ReferenceFrechet

from .reference_set import AgainstFolder


class Fid(AgainstFolder):
    r"""Frechet distance of the Gaussian fits of real and of made features,

    $$|\mu_r - \mu_g|^2 + \mathrm{tr}\,(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2}).$$

    Heusel et al. 2017, arXiv 1706.08500. It is biased upwards for few images: compare at one count only, and where
    there are fewer images than features, prefer `cmmd`; `notes` then says so.

    Args:
        images: a folder of real images.
        features: `inception`, `clip:MODEL`, `pixels` or `file.py:function`.
        weights: a local file of Inception's weights.

    Raises:
        RequestError: the folder or the features cannot be used.
    """

    better: Mapping[str, str] = {"fid": "lower"}

    def __init__(self, images: str = "", features: str = "inception", weights: str = ""):
        super().__init__("fid", images, features, weights, least=2)

    @cached_property
    def reference(self) -> ReferenceFrechet:
        """Moments of the real images."""
        return ReferenceFrechet(self.real)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"fid": ...}`, 0 or more."""
        rows = self.rows(features)
        for name, count in (("made", len(rows)), ("real", len(self.real))):
            if count <= rows.shape[1]:
                self.note(
                    f"fid: {count} {name} images with {rows.shape[1]} features each give a covariance that is not of "
                    "full rank; the distance is biased upwards, and comparable at this count alone."
                )
        return {"fid": self.reference.distance(rows)}
