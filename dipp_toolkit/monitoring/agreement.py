"""How sure a reward is of its scores, as something to watch: a fall of it beside a rise of the reward is exploitation.

A generator that a reward drives to images unlike those it was fitted to makes its members disagree before any judge
sees it. `over_optimisation` treats it as it does a judge: nothing was trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..protocols import Doubting, Reward
from ..utils.images import Images

PREFIX = "agreement/"


@dataclass(frozen=True)
class Agreement:
    """Minus the doubt of a reward.

    Attributes:
        reward: whose.
    """

    reward: Doubting
    differentiable = False

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """At most 0, and 0 where the reward is sure."""
        return -self.reward.doubt(images, prompts)


def agreements(rewards: Mapping[str, Reward]) -> dict[str, Reward]:
    """What is watched of the rewards that say how sure they are, by `agreement/NAME`."""
    return {PREFIX + name: Agreement(reward) for name, reward in rewards.items() if isinstance(reward, Doubting)}
