"""What the monitors look at: scores, diversity and colours of one generator's images, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from ..evaluation.colour import clipped_share, contrast, saturation


@dataclass(frozen=True)
class Snapshot:
    """Numbers of a generator's images of P prompts; two snapshots to be compared hold the same prompts and noises.

    Attributes:
        rewards: every reward's score, judges included, mean over noises.
        diversity: root-mean-square difference of two noises' images, mean over pairs; None with a single noise.
        saturation: mean HSV saturation.
        contrast: standard deviation of luma.
        clipped: share of pixels with a channel at an end of its range.
    """

    rewards: Mapping[str, Float[Tensor, " prompts"]]
    diversity: Float[Tensor, " prompts"] | None
    saturation: Float[Tensor, " prompts"]
    contrast: Float[Tensor, " prompts"]
    clipped: Float[Tensor, " prompts"]


def take_snapshot(
    images: Float[Tensor, "prompts seeds 3 height width"], scores: Mapping[str, Float[Tensor, "prompts seeds"]]
) -> Snapshot:
    """A snapshot of images in [0, 1] and their scores.

    Args:
        images: of P prompts and S noises.
        scores: by reward.
    """
    prompts, seeds = images.shape[:2]
    flat = images.flatten(0, 1)

    def per_prompt(values: Tensor) -> Tensor:
        return values.double().reshape(prompts, seeds).mean(1)

    pairs = [
        (images[:, a].double() - images[:, b].double()).square().flatten(1).mean(1).sqrt()
        for a, b in combinations(range(seeds), 2)
    ]
    return Snapshot(
        rewards={name: values.double().mean(1) for name, values in scores.items()},
        diversity=torch.stack(pairs).mean(0) if pairs else None,
        saturation=per_prompt(saturation(flat)),
        contrast=per_prompt(contrast(flat)),
        clipped=per_prompt(clipped_share(flat)),
    )
