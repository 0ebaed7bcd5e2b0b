"""`cmmd`: discrepancy of CLIP embeddings to a folder of real images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.mmd import CMMD_SCALE, CMMD_SIGMA, gaussian_mmd, kernel_mean

from .reference_set import AgainstFolder

MODEL = "clip:openai/clip-vit-large-patch14-336"


class Cmmd(AgainstFolder):
    r"""$1000\,\mathrm{MMD}^2$ of unit CLIP ViT-L/14 embeddings at 336 pixels, Gaussian kernel, $\sigma = 10$, biased.

    Jayasumana et al. 2024, arXiv 2401.09603. It assumes no Gaussian, and its bias is small for a few thousand images.

    Args:
        images: a folder of real images.
        features: the paper's CLIP, another `clip:MODEL`, `inception`, `pixels` or `file.py:function`. Numbers of
            different features are not comparable.
        sigma: the kernel's width; the paper's fits features of length 1.
        weights: a local file of Inception's weights, where features is `inception`.

    Raises:
        RequestError: the folder or the features cannot be used, or sigma is not above 0.
    """

    better: Mapping[str, str] = {"cmmd": "lower"}

    def __init__(self, images: str = "", features: str = MODEL, sigma: float = CMMD_SIGMA, weights: str = ""):
        super().__init__("cmmd", images, features, weights, least=1)
        if not sigma > 0:
            raise RequestError(f"The metric 'cmmd' has a kernel whose sigma is above 0; got {sigma}.")
        self.sigma = sigma

    @cached_property
    def real_mean(self) -> float:
        """Mean kernel over pairs of real images."""
        return kernel_mean(self.real, self.real, self.sigma)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"cmmd": ...}`, in [0, 2000]."""
        return {"cmmd": CMMD_SCALE * gaussian_mmd(self.rows(features), self.real, self.sigma, self.real_mean)}
