r"""A small real detector for scenes of emoji: every glyph at every size, by normalised cross-correlation.

With a glyph's lightness $t$ inside its outline $m$ (both `size` by `size`), and the grey picture $x$ around a place,

$$c = \frac{\sum m\,(t - \bar t)(x - \bar x)}{\sqrt{\sum m\,(t - \bar t)^2 \sum m\,(x - \bar x)^2}},$$

means over the outline. It does not change where the picture there is any brightening multiple of the glyph, as an emoji
of one colour is. A peak of $c$ is an object; of peaks that cover each other the highest remains.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))  # it may be named as a file, by --set reward.geneval.detector=

from benchmarks.geneval.scenes import CLASSES, TINTS, glyphs, resized
from dipp_geneval.verdict import Detections, Found

SIZES = (44, 46, 48, 50, 52)
LOW, HIGH = 0.55, 0.85
"""Correlations that are certainties 0 and 1."""


@cache
def templates(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a size: each glyph less its mean inside its outline, of unit length; outlines; their areas."""
    light, opacity = resized(glyphs(), size).unbind(1)
    inside = (smoothed(opacity) > 0.95).float()  # where the background does not reach
    area = inside.sum((1, 2), keepdim=True)
    light = smoothed(torch.where(opacity > 0.5, light, (light * inside).sum((1, 2), keepdim=True) / area))
    centred = (light - (light * inside).sum((1, 2), keepdim=True) / area) * inside
    return centred / centred.flatten(1).norm(dim=1)[:, None, None], inside, area


def smoothed(pictures: Tensor) -> Tensor:
    """Pictures `(batch, height, width)` less what noise and a pixel's shift change: a binomial of 5 by 5."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = F.pad(pictures[:, None], (2, 2, 2, 2), "replicate")
    return F.conv2d(padded, (row[:, None] * row)[None, None])[:, 0]


def correlations(grey: Tensor, size: int) -> Tensor:
    """$c$ of each class at each place of its upper left corner, `(classes, height - size + 1, width - size + 1)`."""
    pattern, inside, area = templates(size)
    height, width = grey.shape

    def slid(picture: Tensor, kernels: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(picture) * torch.fft.rfft2(kernels, s=(height, width)).conj()
        return torch.fft.irfft2(spectrum, s=(height, width))[:, : height - size + 1, : width - size + 1]

    spread = slid(grey.square(), inside) - slid(grey, inside).square() / area
    return slid(grey, pattern) / spread.clamp(min=1e-2).sqrt()


class EmojiFinder:
    """The detector; `detector=benchmarks/geneval/finder.py:EmojiFinder`."""

    classes = CLASSES

    def __call__(self, images: Tensor) -> list[Detections]:
        """See `dipp_geneval.detectors.Detector`."""
        return [self._one(image) for image in images.cpu().float()]

    def _one(self, image: Tensor) -> Detections:
        grey = smoothed(image.mean(0, keepdim=True))[0]
        peaks = []
        for size in SIZES:
            found = correlations(grey, size)
            top = F.max_pool2d(found[None], 9, 1, 4)[0]
            for kind, row, column in ((found == top) & (found > LOW)).nonzero().tolist():
                peaks.append((float(found[kind, row, column]), kind, size, row, column))
        kept: list[tuple[float, int, int, int, int]] = []
        for peak in sorted(peaks, reverse=True):
            if all(max(abs(_centre(peak)[axis] - _centre(other)[axis]) for axis in (0, 1)) > 24 for other in kept):
                kept.append(peak)
        masks = np.zeros((len(kept), *grey.shape), bool)
        boxes = np.zeros((len(kept), 4), np.float32)
        for mask, box, (_, kind, size, row, column) in zip(masks, boxes, kept, strict=True):
            mask[row : row + size, column : column + size] = templates(size)[1][kind].numpy() > 0
            box[:] = column, row, column + size, row + size
        scores = np.clip((np.array([peak[0] for peak in kept], np.float32) - LOW) / (HIGH - LOW), 0, 1)
        return Detections([CLASSES[kind] for _, kind, *_ in kept], scores, boxes, masks)


def _centre(peak: tuple[float, int, int, int, int]) -> tuple[float, float]:
    _, _, size, row, column = peak
    return row + size / 2, column + size / 2


def nearest_tint(image: Tensor, name: str, found: Sequence[Found]) -> list[str]:
    """The colour classifier of scenes: the tint that a multiple of comes nearest to the mean inside the outline."""
    tints = torch.tensor(list(TINTS.values()))
    shade = 0.4 + 0.6 * _mean_light()[name]
    named = []
    for one in found:
        assert one.mask is not None
        mean = image.cpu()[:, torch.from_numpy(one.mask)].mean(1)
        named.append(list(TINTS)[int((mean / shade - tints).norm(dim=1).argmin())])
    return named


@cache
def _mean_light() -> dict[str, float]:
    light, opacity = glyphs().unbind(1)
    inside = opacity > 0.5
    return {name: float(one[here].mean()) for name, one, here in zip(CLASSES, light, inside, strict=True)}
