r"""Buckets: the sizes of a run's images, one for each of its aspects, all of about one area.

For a resolution $R$, the side of a square in pixels, and an aspect $a$ = width / height, the ideal sides are

$$w^* = R \sqrt{a}, \qquad h^* = R / \sqrt{a}, \qquad w^* h^* = R^2,$$

and a bucket has the multiples of $u$ that are nearest to them in proportion: of all such sizes, the one that is least
in $|\log(w h / R^2)| + |\log(w / (h a))|$, twice the larger of $|\log(w / w^*)|$ and $|\log(h / h^*)|$. The unit $u$
is what the autoencoder makes of one latent, times the patch, or the halvings, of the network (`sizes.rules_of`).

A batch has one size. SDXL was trained in buckets of about 1024^2 pixels whose sides are multiples of 64 (Podell et al.
2023, arXiv 2307.01952, section 2.3 and appendix I); the scheme is NovelAI's "aspect ratio bucketing" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..distributed.shared_draws import digest_seed
from ..utils.image_sizes import Size

TIE = 1e-9


def bucket(resolution: float, aspect: tuple[int, int], unit: int) -> Size:
    """Height and width of one bucket in pixels, multiples of `unit` and at least one.

        >>> bucket(1024, (4, 3), 64), bucket(1024, (16, 9), 64)
        ((896, 1152), (768, 1344))

    Args:
        resolution: side of a square of the same area, in pixels.
        aspect: width and height, in proportion.
        unit: pixels that both sides are multiples of.
    """
    stretch = math.sqrt(aspect[0] / aspect[1])
    return _nearest(resolution / stretch, unit), _nearest(resolution * stretch, unit)


def buckets(resolution: float, aspects: Sequence[tuple[int, int]], unit: int) -> tuple[Size, ...]:
    """The buckets of several aspects, in their order, each size once; see `bucket`."""
    return tuple(dict.fromkeys(bucket(resolution, aspect, unit) for aspect in aspects))


def _nearest(side: float, unit: int) -> int:
    """The multiple of `unit` nearest to a side in proportion."""
    units = side / unit
    below = math.floor(units)
    middle = below * (below + 1) * (1 - TIE)  # of two as near it is the larger one, whichever way it was computed
    return unit * (below if units**2 < middle else below + 1)


@dataclass(frozen=True)
class Buckets:
    """Which of several sizes each update's batch has.

    An update's size follows from the seed and its number alone, so that it is the same in every process that shares the
    run, and in a run that was resumed. Each is as likely as the others.

    Attributes:
        sizes: height and width in latents, two or more; the first is what is measured and shown.
        seed: of the run.
    """

    sizes: tuple[Size, ...]
    seed: int

    def of_update(self, number: int) -> Size:
        """The size of an update's batches, the generator's and those of the assistant before it.

        Args:
            number: of the generator's update, from 0; of the assistant's warm-up, -1 and down.
        """
        return self.sizes[digest_seed(f"{self.seed} size {number}".encode()) % len(self.sizes)]
