"""Random numbers that belong to one image: seeded with its initial noise, whatever is made beside it and wherever."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributed.shared_draws import digest_seed


def own_generators(noise: Float[Tensor, "batch ..."]) -> list[torch.Generator]:
    """A random generator for each image, a function of the image's own initial noise alone.

    Its seed is the digest of the noise's bytes as float32. It is a generator of the CPU, so
    that the numbers do not depend on the device; stock pipelines take such a list as `generator`.

    Args:
        noise: pure noises z, one an image.
    """
    rows = noise.detach().to("cpu", torch.float32).contiguous()
    return [torch.Generator().manual_seed(digest_seed(row.numpy().tobytes())) for row in rows]
