"""A world whose prompts differ by far more than the samples of one of them, with a gradient that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.estimators.smoothing import lowest_cosines
from dipp_toolkit.objective.estimators.surrogate import Surrogate
from dipp_toolkit.prompts.sampler import NoisesOfPrompts, PromptOrder

SHAPE = (4, 8, 8)


def waves(seed: int) -> Tensor:
    """Two directions in latent space made of the three lowest cosines each way, of length 1: `(2, 4, 8, 8)`."""
    random = torch.Generator().manual_seed(seed)
    basis = lowest_cosines(SHAPE[-1], 3).float()
    directions = basis @ torch.randn(2, SHAPE[0], 3, 3, generator=random) @ basis.T
    return directions / directions.flatten(1).norm(dim=1).reshape(2, 1, 1, 1)


def linear(latents: Tensor, directions: Tensor) -> Tensor:
    """Along one direction."""
    return (latents * directions[0]).flatten(1).sum(1)


def curved(latents: Tensor, directions: Tensor) -> Tensor:
    """Saturated along one direction, with an optimum along the other."""
    along, across = (latents.flatten(1) @ directions.flatten(1).T).unbind(1)
    return along.tanh() + 0.5 * across - 0.25 * across.square()


@dataclass
class PromptOffsets:
    r"""$r(x, c) = b_c + w f(x)$ of standard normal latents `(4, 8, 8)`, $b_c$ of deviation `between` and $w f$ of
    deviation `within`.

    Attributes:
        seed: of the offsets, the embeddings, the direction and the samples.
        shape: $f$: `linear` or `curved`.
        between: deviation of the prompts' own offsets.
        within: deviation of the scores of one prompt.
        prompts: how many.
    """

    seed: int = 0
    shape: Callable[[Tensor, Tensor], Tensor] = linear
    between: float = 1.0
    within: float = 0.1
    prompts: int = 64
    offsets: Tensor = field(init=False)
    tokens: Tensor = field(init=False)
    factor: float = field(init=False)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(1000 + self.seed)
        self.offsets = self.between * torch.randn(self.prompts, generator=self.random)
        self.tokens = torch.randn(self.prompts, 5, 16, generator=self.random)
        self.directions = waves(self.seed)
        self.factor = self.within / self.shape(torch.randn(4096, *SHAPE, generator=self.random), self.directions).std()

    def sample(self, prompts: Tensor, update: int = 0) -> Sample:
        """New latents for prompts by their numbers, `(batch,)`."""
        latents = torch.randn(len(prompts), *SHAPE, generator=self.random)
        texts = tuple(f"prompt {number}" for number in prompts.tolist())
        condition = Condition(texts, {"encoder_hidden_states": self.tokens[prompts]})
        return Sample(latents, condition, latents, self.random, update)

    def score(self, latents: Tensor, prompts: Tensor) -> Tensor:
        """Scores, `(batch,)`."""
        return self.offsets[prompts] + self.factor * self.shape(latents, self.directions)

    def gradient(self, latents: Tensor) -> Tensor:
        """Of each score with respect to its latent."""
        leaf = latents.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.factor * self.shape(leaf, self.directions).sum(), leaf)
        return gradient


@dataclass(frozen=True)
class Learned:
    """What a surrogate has learned of a world.

    Attributes:
        cosine: mean cosine of its gradient with the true one, on samples that it has not seen.
        length: of its gradient over that of the true one.
        correlation: as the surrogate measures it.
        trusted: updates in which its gradient was used.
        first: the first of them, from 1; 0 where there is none.
    """

    cosine: float
    length: float
    correlation: float
    trusted: int
    first: int


def learn(
    world: PromptOffsets, surrogate: Surrogate, updates: int = 50, batch: int = 32, accumulation: int = 1
) -> Learned:
    """Let a surrogate follow a generator that stands still, in batches such as a training run makes."""
    order, noises = PromptOrder(world.prompts, world.seed), NoisesOfPrompts(surrogate.noises_per_prompt)
    taken = first = 0
    for update in range(updates):
        positions, following = noises.take(taken, batch * accumulation)
        taken += noises.new_prompts(batch * accumulation)
        noises = following
        for prompts in torch.tensor(order.at(positions)).split(batch):
            sample = world.sample(prompts, update)
            surrogate.estimate(sample, lambda latents, _, prompts=prompts: world.score(latents, prompts))
        if surrogate.is_trusted and not first:
            first = update + 1
        surrogate.commit()
    prompts = torch.arange(world.prompts)
    sample = world.sample(prompts)
    lent, true = surrogate.lend(sample), world.gradient(sample.x0)
    cosine = torch.cosine_similarity(lent.flatten(1), true.flatten(1), dim=1).mean().item()
    length = (lent.norm() / true.norm()).item()
    return Learned(cosine, length, surrogate.correlation, surrogate.trusted, first)
