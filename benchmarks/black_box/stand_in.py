"""What somebody who can differentiate would train with in the place of the JPEG size: a smooth count of its bits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dipp_toolkit.objective.estimators.smoothing import lowest_cosines

YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""JFIF's colour transform, chroma not shifted."""


def quantisation(quality: int) -> tuple[Tensor, Tensor]:
    """The tables that Pillow's encoder uses for luma and chroma at a quality, `(8, 8)` each."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format="JPEG", quality=quality)
    tables = Image.open(file).quantization  # type: ignore[attr-defined]
    luma, chroma = (torch.tensor(tables[index], dtype=torch.float32).reshape(8, 8) for index in (0, 1))
    return luma, chroma


def bits(plane: Tensor, table: Tensor) -> Tensor:
    r"""$\sum \log_2(1 + |c| / q)$ over the cosine coefficients of all 8 x 8 blocks, about the bits of their magnitudes.

    Args:
        plane: `(batch, height, width)` in [0, 255]; sides are multiples of 8.
        table: quantisation steps `q`.
    """
    basis = lowest_cosines(8, 8).float()
    blocks = plane.unfold(1, 8, 8).unfold(2, 8, 8)
    coefficients = basis.T @ blocks @ basis
    return (1 + coefficients.abs() / table).log2().sum((1, 2, 3, 4))


class JpegStandIn:
    """Minus the smooth bits a pixel at quality 95, chroma at half resolution as the encoder stores it."""

    differentiable = True

    def __init__(self) -> None:
        self.luma, self.chroma = quantisation(95)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        planes = torch.einsum("kc,bchw->bkhw", torch.tensor(YCBCR), 255 * images)
        small = F.avg_pool2d(planes[:, 1:], 2)
        total = bits(planes[:, 0] - 128, self.luma) + bits(small[:, 0], self.chroma) + bits(small[:, 1], self.chroma)
        return -total / (images.shape[-2] * images.shape[-1])
