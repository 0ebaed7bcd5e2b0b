"""Fixed images and prompts that rewards are held to: made of whole numbers, the same on every machine to the bit."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ...utils.images import Images

NAME = "folded-waves-1"
"""Of this set; other images, or other prompts, have another name."""
SIDE = 256
PERIODS = ((3, 5, 7), (11, 2, 5), (1, 13, 4), (6, 6, 17))
"""Of each image: how fast each channel goes across, down and along the diagonal."""
PROMPTS = ("a red fox in the snow", "abstract colours", "an old sailor as an oil painting", "two small dogs") * 2
"""One an image; the second four see the images in another order."""
ORDER = (0, 1, 2, 3, 2, 3, 1, 0)


@cache
def _pictures() -> Tensor:
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images = []
    for a, b, c in PERIODS:
        channels = []
        for number, (x, y) in enumerate(((a, b), (b, c), (c, a))):
            wave = (across * x + down * y + 37 * number) % 512  # up and down again, twice 256 levels
            channels.append(torch.where(wave < 256, wave, 511 - wave))
        images.append(torch.stack(channels))
    return torch.stack(images)


def golden_images() -> Images:
    """The images, in [0, 1] with 256 levels, `(8, 3, 256, 256)`."""
    return _pictures()[list(ORDER)].float() / 255
