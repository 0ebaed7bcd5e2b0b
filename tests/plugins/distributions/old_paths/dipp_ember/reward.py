"""A frozen network as a reward."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.contained import user_path
from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.naming import nearest
from dipp_toolkit.rewards.environments import Environment
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from dipp_toolkit.rewards.weights import fill, tensors_of

KINDS = ("warm", "cold")
__all__ = ["Ember", "fill", "first_line", "tensors_of", "user_path"]


class Warmth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.mean((2, 3)) * self.weights).sum(1)


class Ember(ModelReward):
    name = "ember"
    reads_prompts = False

    def __init__(self, kind: str = "warm") -> None:
        if kind not in KINDS:
            raise RequestError(f"No ember is {kind}. Did you mean {nearest(kind, KINDS)}?")
        super().__init__(Warmth(), Preprocess(4, mean=CLIP_MEAN, std=CLIP_STD))

    def score(self, pixels: Float[Tensor, "batch 3 size size"], texts: Tensor | None) -> Float[Tensor, " batch"]:
        scores: Tensor = self.network(pixels)
        return scores


def environment() -> Environment:
    return Environment("ember-original", ("ember==1.0",), "ember", "dipp_ember.reward:Ember", "dipp_ember")
