"""Colour of single images: how saturated, how contrasted, and how much of each lies at the ends of the range.

Rewards are often raised by colour alone, so these three are watched while training and given beside every other number.
Each looks at one image at a time, needs no weights, and is read as a change: against the start, or the reference.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.images import Images

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""

CLIPPED = 1 / 255
"""A channel this near to 0 or to 1 counts as clipped: one step of an 8-bit image, with its rounding's slack."""

_SLACK = 1e-4


def saturation(images: Images) -> Float[Tensor, " batch"]:
    r"""Mean saturation of the HSV colour model (Smith 1978) over the pixels,

    $$S = \frac{1}{HW} \sum \frac{\max(R, G, B) - \min(R, G, B)}{\max(R, G, B)},$$ where a black pixel has 0.

    Args:
        images: in [0, 1].

    Returns:
        0 for grey images, 1 where every pixel lacks one of the three channels.

    Raises:
        RequestError: the images are not `(batch, 3, height, width)`.
    """
    pixels = _checked(images, "saturation")
    most, least = pixels.amax(1), pixels.amin(1)
    share = torch.where(most > 0, (most - least) / most.clamp(min=torch.finfo(most.dtype).tiny), torch.zeros_like(most))
    return share.mean((1, 2))


def contrast(images: Images) -> Float[Tensor, " batch"]:
    r"""Root-mean-square contrast (Peli 1990): standard deviation over the pixels of the BT.601 luma.

    Args:
        images: in [0, 1].

    Returns:
        0 for plain images, at most 0.5 (half black, half white).

    Raises:
        RequestError: the images are not `(batch, 3, height, width)`.
    """
    red, green, blue = _checked(images, "contrast").unbind(1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return luma.std((1, 2), correction=0)


def clipped_share(images: Images) -> Float[Tensor, " batch"]:
    """Share of pixels of which at least one channel is at most 1/255 or at least 254/255.

    A drawing on white has much of it by right; a photograph whose share grows is losing light and shade.

    Args:
        images: in [0, 1].

    Returns:
        Between 0 and 1.

    Raises:
        RequestError: the images are not `(batch, 3, height, width)`.
    """
    pixels = _checked(images, "clipped_share")
    # 8-bit values divided by 255 in float32 land on either side of the limit.
    at_an_end = (pixels <= CLIPPED + _SLACK) | (pixels >= 1 - CLIPPED - _SLACK)
    return at_an_end.any(1).float().mean((1, 2))


def _checked(images: Tensor, name: str) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise RequestError(f"'{name}' looks at images of shape (batch, 3, height, width), not {tuple(images.shape)}.")
    return images.float()
