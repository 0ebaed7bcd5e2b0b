"""Pixels as features: what diversity is measured with where no network is wanted."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.images import Images

SIDE = 64


def pixel_features(images: Images, side: int = SIDE) -> Float[Tensor, "batch pixels"]:
    """All pixels of each image in one row, float32, `(B, 3 * h * w)`.

    An image whose longer side is more than `side` is first averaged over areas until it is `side`, the shorter one in
    proportion: differences in grain then count less than differences in what is shown.

    Raises:
        RequestError: the images are not `(batch, 3, height, width)`, or the side is below 1.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise RequestError(
            f"Pixels are taken from images of shape (batch, 3, height, width), not {tuple(images.shape)}."
        )
    if side < 1:
        raise RequestError(f"The side of the small images is {side}; expected a number of pixels from 1.")
    images = images.detach().float()
    height, width = images.shape[-2:]
    longer = max(height, width)
    if longer > side:
        size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
        images = F.interpolate(images, size=size, mode="area")
    return images.flatten(1)
