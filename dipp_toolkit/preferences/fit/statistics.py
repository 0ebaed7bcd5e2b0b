r"""What an image looks like before any network: its colours, their strength and its edges, on a grid.

Image-text networks are trained to overlook what people vote on: a CLIP that is to name a thing in any light keeps
little of the light. After 300 votes on images of `emoji-onestep` a head on the embedded CLIP's features alone agrees
with a hidden preference for warmth on 74 % of pairs, with one for a bright centre on 56 %, and with these statistics
beside them on 93 % and 84 % (`benchmarks/reward_fit/run.py`).

On each cell of the grid: the means of red, green and blue; of the colourfulness, the deviation
$\sqrt{\mathrm{Var}_c(x) + \epsilon}$ of the three channels of a pixel; and of the edges, the length of the gradient of
the mean of the channels. All are smooth in the pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...utils.images import Images

MAPS = 5
FLAT = 1e-4
"""Added to a variance and a squared length, whose roots have no gradient at 0."""


def image_maps(images: Images) -> Float[Tensor, "batch 5 height width"]:
    """Red, green, blue, colourfulness and edges of images in [0, 1], pixel by pixel."""
    light = images.mean(1, keepdim=True)
    down = F.pad(light[:, :, 1:] - light[:, :, :-1], (0, 0, 0, 1))
    across = F.pad(light[..., 1:] - light[..., :-1], (0, 1))
    colourfulness = (images.var(1, unbiased=False, keepdim=True) + FLAT).sqrt()
    return torch.cat([images, colourfulness, (down.square() + across.square() + FLAT).sqrt()], 1)


def on_grid(maps: Float[Tensor, "batch maps height width"], cells: int) -> Float[Tensor, "batch maps*{cells}*{cells}"]:
    """Means of maps on a grid of `cells` by `cells`.

    The sides are multiples of `cells` for square inputs of CLIPs; other rows and columns are left out at the end.
    """
    height, width = maps.shape[-2] // cells, maps.shape[-1] // cells
    return F.avg_pool2d(maps, (height, width))[..., :cells, :cells].flatten(1)
