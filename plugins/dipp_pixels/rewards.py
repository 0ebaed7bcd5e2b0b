"""Colourfulness and sharpness, as functions of images and as rewards that ignore the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.images import Images

EPSILON = 1e-10
"""Under every square root, so that a plain image has a score near 0 and a finite gradient."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""


def colourfulness(images: Images) -> Float[Tensor, " batch"]:
    r"""Colourfulness of Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), eq. (6).

    With the opponent axes $rg = R - G$ and $yb = \tfrac12 (R + G) - B$, their means $\mu$ and deviations $\sigma$ over
    the pixels, $$M = \sqrt{\sigma_{rg}^2 + \sigma_{yb}^2} + 0.3 \sqrt{\mu_{rg}^2 + \mu_{yb}^2}.$$

    Args:
        images: in [0, 1].

    Returns:
        0 for grey images; 0.13 is moderately and 0.43 extremely colourful. The paper's images are in [0,
        255], so its values are 255 times these.

    Raises:
        RequestError: the images have no three channels.
    """
    red, green, blue = split_channels(images, "colourfulness")
    rg, yb = red - green, (red + green) / 2 - blue
    spread = rg.var((1, 2), correction=0) + yb.var((1, 2), correction=0)
    shift = rg.mean((1, 2)).square() + yb.mean((1, 2)).square()
    return (spread + EPSILON).sqrt() + 0.3 * (shift + EPSILON).sqrt()


def sharpness(images: Images) -> Float[Tensor, " batch"]:
    r"""Deviation of the brightness's Laplacian, $\sqrt{\mathrm{Var}(\Delta Y)}$ over the pixels.

    $\Delta Y$ is the four-neighbour Laplacian of the BT.601 luma, the border repeated. Its variance is the usual focus
    measure (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000); the root grows linearly with
    contrast. Noise is sharp by this
    measure: as a reward it needs a divergence beside it.

    Args:
        images: in [0, 1].

    Returns:
        0 for plain images, at most 4.

    Raises:
        RequestError: the images have no three channels.
    """
    red, green, blue = split_channels(images, "sharpness")
    luma = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]
    padded = F.pad(luma, [1, 1, 1, 1], mode="replicate")
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return ((around - 4 * luma).var((1, 2, 3), correction=0) + EPSILON).sqrt()


def split_channels(images: Tensor, name: str) -> tuple[Tensor, ...]:
    """Red, green and blue, each `(B, H, W)`.

    Raises:
        RequestError: the images have no three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise RequestError(f"'{name}' scores images of shape (batch, 3, height, width), not {tuple(images.shape)}.")
    return images.unbind(1)


class Colourfulness:
    """`colourfulness` as a reward; prompts do not matter."""

    name = "colourfulness"
    differentiable = True
    range = "0 for grey; 0.13 is moderate and 0.43 extreme"
    licence = "no weights; the code is Apache-2.0"
    source = "Hasler and Suesstrunk 2003, Measuring colourfulness in natural images"
    blind_to = "the prompt, and what is shown: noise of many colours will do"
    gradient = "through the formula"
    reads_prompts = False

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores in float32, `(B,)`."""
        return colourfulness(images.float())


class Sharpness:
    """`sharpness` as a reward; prompts do not matter."""

    name = "sharpness"
    differentiable = True
    range = "0 for a plain image, at most 4"
    licence = "no weights; the code is Apache-2.0"
    source = "Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy: the root of their measure"
    blind_to = "the prompt, and what is shown: noise is sharp"
    gradient = "through the formula"
    reads_prompts = False

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores in float32, `(B,)`."""
        return sharpness(images.float())
