r"""The head of a fitted reward: a linear function of groups of features that learns which groups a voter looks at.

Of the groups $f_g(x, c)$ of an image and a prompt, each in units of its own,

$$r(x, c) = \sum_g a_g \frac{1}{\sqrt{d_g}} \langle w_g, (f_g(x, c) - m_g) / s_g \rangle.$$

$s_g$ is how far images *of one prompt* differ in a feature, and not how far all images do: votes compare images of one
prompt, and what tells these apart is a few hundredths of what tells prompts apart. The product of a gate $a_g$ and
weights $w_g$ under weight decay is the group lasso (Hoff 2017, arXiv 1611.00040): $\min (a^2 + |w|^2) / 2$ over all
$a\, w = v$ is $|v|$, so that groups without use vanish whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

GATE = 0.3
"""What gates begin at: all groups alike, and the weights at 0."""
LEAST = 1e-3
"""The least unit of a feature, as a share of its deviation over all images: one that is constant within prompts says
nothing of votes."""


class GroupedHead(nn.Module):
    """See the module.

    Args:
        sizes: features of each group, by name.
    """

    def __init__(self, sizes: Mapping[str, int]):
        super().__init__()
        count = sum(sizes.values())
        self.weight = nn.Parameter(torch.zeros(count))
        self.gate = nn.Parameter(torch.full((len(sizes),), GATE))
        groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes.values())))
        self.group: Tensor
        self.level: Tensor
        self.unit: Tensor
        self.register_buffer("group", groups)
        self.register_buffer("level", torch.zeros(count))
        self.register_buffer("unit", torch.ones(count))

    @torch.no_grad()
    def set_units(self, features: Float[Tensor, "images features"], prompts: Tensor) -> None:
        """Take the features' units from images.

        Args:
            features: of all images that were voted on.
            prompts: which prompt each image is of, `(images,)`, whole numbers from 0 on.
        """
        count = int(prompts.max()) + 1
        ones = torch.zeros(count, dtype=features.dtype, device=features.device).index_add_(
            0, prompts, torch.ones_like(features[:, 0])
        )
        means = torch.zeros(count, features.shape[1], dtype=features.dtype, device=features.device)
        means = means.index_add_(0, prompts, features) / ones[:, None]
        apart = features - means[prompts]
        within = (apart.square().sum(0) / max(len(features) - count, 1)).sqrt()
        least = LEAST * features.std(0) + torch.finfo(features.dtype).eps
        self.level.copy_(features.mean(0))
        self.unit.copy_(torch.maximum(within, least) * self.group.bincount()[self.group].sqrt())

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, " batch"]:
        """Log-odds, up to a constant."""
        result: Any = ((features - self.level) / self.unit) @ (self.gate[self.group] * self.weight)
        return result
