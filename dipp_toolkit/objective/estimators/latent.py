r"""A reward learned on latents beside the training, so that most samples need neither the decoder nor the reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...config import NOISES_COMPARED
from ...diffusion.condition import Condition
from ...distributed import Processes
from ...utils.precision import full_precision
from ...utils.rank_correlation import rank_correlation
from ..base import Sample
from .memory import neighbours, prompt_key
from .surrogate import pooled

WIDEST = 256
"""Features of a prompt that the map reads; more are projected to as many at random."""
KEPT = 0.994
"""What a sample that is looked at leaves of the weight of those before it: some hundred count, because the generator
goes on."""
SMOOTHED = 0.9
"""The same of the reward's usual size and score."""
RIDGE = 0.1
"""Ridge of the least squares, in prompts seen once."""
PAIRS = 256
"""Newest pairs that the rank correlation is measured on; all of an update's, where those are more."""
ENOUGH = 32
"""Pairs without which nothing is trusted."""
LOOKS = 4
"""Newest looks that the cosine is averaged over."""


def why_not_latent(reward: str) -> str:
    """Why a reward without a gradient cannot be learned so, and the way out."""
    return (
        f"The reward '{reward}' has no gradient, so latent=true has nothing to learn it from. Leave that option out: a "
        "surrogate already learns from its scores, as black_box says."
    )


@dataclass(frozen=True)
class Look:
    """What a pass saw of the true reward."""

    features: Float[Tensor, "batch features"]
    x0: Float[Tensor, "batch ..."]
    scores: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch ..."]
    keys: tuple[int, ...]


@dataclass
class LatentReward:
    r"""Learns the direction of a reward's gradient on $x_0$ from the prompt, and lends it while that is trusted.

    What stands in is one linear layer from the prompt to a slope, a reward that is linear in the latents:

    $$\hat r(x_0, c) = \langle x_0, W \varphi(c) \rangle, \qquad \nabla_{x_0} \hat r = W \varphi(c),$$

    with $\varphi(c)$ the normalised mean of the prompt's embedding and a 1. It is fitted to the directions of the true
    gradients $g_i$ on the samples that the true reward is asked about, each counting less by the number $n_i$ of those
    asked about since,

    $$\min_W \sum_i 0.994^{n_i} \Big\| W \varphi(c_i) - \frac{g_i}{\|g_i\|} \Big\|^2 + \lambda \|W\|^2,$$

    which is Sobolev training (Czarnecki et al. 2017, arXiv 1706.04859) of its gradient alone, and a synthetic gradient
    (Jaderberg et al. 2017, arXiv 1608.05343). Its solution is exact at every look: two sums are kept in place of a
    memory of samples, and nothing is tuned. A small convolutional network that reads $x_0$ as well agreed no better
    with unseen gradients of the emoji rewards, for many times the price. The gradient lent is scaled to the usual
    root mean square of the true one.

    Trusted, it lends a gradient for every sample, and the true reward is asked about one sample in `every`, those of a
    prompt together and each place of a pass in turn. What it is asked about is predicted before it is learned from;
    within an update every pass is lent the slope of the updates before it. Until there are 32 unseen pairs, and while
    the rank correlation of differences of scores within a prompt or the cosine with the unseen gradient is below its
    threshold, the true reward is asked about all samples, and its gradient is used to the bit.

    **A control variate.** With $l_i$ the gradient lent and $g_i$ the true one, a sample's gradient is

    $$c\,l_i + n\,(g_i - c\,l_i) \text{ where the true reward is asked, } c\,l_i \text{ elsewhere,} \qquad
    n = \text{every},$$

    with c the cosine of the two over the newest looks, between 0 and 1, which is the least squares of one on the other,
    because both have the same size. Each place is asked about once in n updates, so that gradients are the true ones in
    expectation, whatever the stand-in is; of a good one c makes what is corrected small, and of a poor one hardly
    anything is used. Where a pass has n prompts or more, each update has its share of true gradients, and a clip or an
    optimiser that normalises sees updates that are alike. (A look at the whole batch in every n-th update, with the
    same expectation, loses that: clipped, the one large step counts for as little as each of the small ones.)

    Attributes:
        every: trusted, it has the true reward asked about one sample of so many.
        least_rank: rank correlation from which it is trusted.
        least_cosine: cosine from which it is trusted.
        seed: of the projection of long prompt features.
        processes: those that learn together.
        first: updates that score all samples in any case; while a scale is measured, for example.
        rank: over the newest pairs, unseen.
        cosine: of the newest looks, unseen.
        updates: generator updates so far.
        lent: updates in which it stood in for the reward on some samples.
    """

    noises_per_prompt: ClassVar[int] = NOISES_COMPARED

    every: int = 3
    least_rank: float = 0.0
    least_cosine: float = 0.05
    seed: int = 0
    processes: Processes = field(default_factory=Processes)
    first: int = 0
    rank: float = 0.0
    cosine: float = 0.0
    updates: int = 0
    lent: int = 0
    gram: Float[Tensor, "features features"] | None = None
    products: Float[Tensor, "features latents"] | None = None
    judged: Float[Tensor, "2 pairs"] = field(default_factory=lambda: torch.zeros(2, 0))
    cosines: list[float] = field(default_factory=list)
    usual: dict[str, float] = field(default_factory=dict)
    unit: float = 0.0
    _slopes: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _projection: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _proposed: list[Look] = field(default_factory=list, init=False, repr=False, compare=False)
    _lends: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def is_trusted(self) -> bool:
        """Whether it agreed with the true reward where it was last looked at."""
        agrees = self.rank >= self.least_rank and self.cosine >= self.least_cosine
        return agrees and self.judged.shape[1] >= ENOUGH and self.updates >= self.first

    def looked_at(self, sample: Sample) -> list[int]:
        """The samples of a pass that the true reward is asked about while this is trusted: each in one update of
        `every`, the samples of a prompt together."""
        return [row for row in range(len(sample.x0)) if (row // self.noises_per_prompt + sample.step) % self.every == 0]

    @property
    def details(self) -> dict[str, float | Tensor]:
        """Numbers for the log of an update whose true reward is evaluated."""
        return {
            "latent_rank": self.rank,
            "latent_cosine": self.cosine,
            "latent_used": 0.0,
        }

    def lend(self, sample: Sample) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch ..."]]:
        """Predicted scores, and the gradient $l$ of the true one's usual size, for all samples of a pass."""
        self._lends = True
        with full_precision(sample.x0.device):
            predicted, slope = self._predict(self._features(sample.condition, sample.x0), sample.x0)
            scores = self.usual["score"] + self.unit * (predicted - self.usual["predicted"])
            return scores, self._sized(slope).to(sample.x0)

    def corrected(
        self, lent: Float[Tensor, "batch ..."], rows: Int[Tensor, " looks"], gradient: Tensor | None = None
    ) -> Float[Tensor, "batch ..."]:
        r"""What a pass uses: $c\,l$, and `every` times what it is wrong by where the true gradient is known.

        Args:
            lent: $l$.
            rows: the samples that the true reward was asked about, on its device.
            gradient: theirs, `(looks, ...)`; None where it was asked about none.
        """
        used = max(self.cosine, 0.0) * lent
        return used if gradient is None else used.index_add(0, rows, self.every * (gradient.to(used) - used[rows]))

    def look(self, sample: Sample, scores: Tensor, gradient: Tensor) -> None:
        """Note what the true reward said of a pass, which `commit` learns from.

        Args:
            sample: what was scored.
            scores: the true ones.
            gradient: of the scores, like `x0`.
        """
        keys = tuple(prompt_key(prompt, sample.readout) for prompt in sample.condition.prompts)
        features = self._features(sample.condition, sample.x0)
        self._proposed.append(Look(features, sample.x0, scores.float(), gradient.float(), keys))

    def commit(self) -> None:
        """Judge it by the update's samples, then learn from them."""
        proposed, lends = self._proposed, self._lends
        self.discard()
        self.updates += bool(proposed) or lends
        self.lent += lends
        if not proposed:
            return
        with torch.no_grad(), full_precision(proposed[0].x0.device):
            self._judge(proposed)
            self._learn(proposed)

    def discard(self) -> None:
        """Forget the update's samples."""
        self._proposed, self._lends = [], False

    def _features(self, condition: Condition, x0: Tensor) -> Float[Tensor, "batch features"]:
        r"""$\varphi(c)$, of length 1 or so; of prompts that the network does not read, a 1 alone."""
        text, one = pooled(condition), x0.new_ones(len(x0), 1, dtype=torch.float32)
        if text is None:
            return one
        text = F.layer_norm(text.to(one), text.shape[-1:])
        if text.shape[1] > WIDEST:
            if self._projection is None or self._projection.device != text.device:
                random = torch.Generator().manual_seed(self.seed)
                drawn = torch.randn(text.shape[1], WIDEST, generator=random) / math.sqrt(text.shape[1])
                self._projection = drawn.to(text.device)
            with full_precision(text.device):
                text = text @ self._projection
        return torch.cat([one, text], dim=1) / math.sqrt(1 + text.shape[1])

    def _predict(self, features: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Scores up to their unit and level, and slopes like `x0`."""
        assert self._slopes is not None
        slope = (features @ self._slopes.to(features)).reshape(x0.shape)
        return (slope * x0.to(slope)).flatten(1).sum(1), slope

    def _sized(self, slope: Tensor) -> Tensor:
        """The slopes of a pass at the usual root mean square of the true gradient."""
        size = self.processes.mean(slope.square().mean()).sqrt()
        return slope * (self.usual["size"] / size.clamp_min(torch.finfo(size.dtype).tiny))

    def _judge(self, proposed: list[Look]) -> None:
        """Compare what it predicts with what it has not seen, and take in the reward's usual size and score."""
        gather, mean = self.processes.gather, self.processes.mean
        scores = gather(torch.cat([look.scores for look in proposed]))
        squares = mean(torch.stack([look.gradient.square().mean() for look in proposed]).mean())
        values = {"square": squares, "score": scores.mean()}
        if self._slopes is not None:
            answers = [self._predict(look.features, look.x0) for look in proposed]
            predicted = gather(torch.cat([answer for answer, _ in answers]))
            keys = gather(torch.tensor([key for look in proposed for key in look.keys], device=scores.device))
            cosines = [
                F.cosine_similarity(slope.flatten(1), look.gradient.flatten(1)).mean()
                for (_, slope), look in zip(answers, proposed, strict=True)
            ]
            self._compare(keys.tolist(), torch.stack([predicted, scores]).cpu())
            self.cosines = [*self.cosines, float(mean(torch.stack(cosines).mean()))][-LOOKS:]
            self.cosine = sum(self.cosines) / len(self.cosines)
            values["predicted"] = predicted.mean()
        for name, value in values.items():
            before = self.usual.get(name)
            new = float(value)
            self.usual[name] = new if before is None else SMOOTHED * before + (1 - SMOOTHED) * new
        self.usual["size"] = math.sqrt(self.usual["square"])

    def _compare(self, keys: list[int], values: Float[Tensor, "2 batch"]) -> None:
        """Rank correlation of predicted and true differences within a prompt, and how long one is in the other."""
        first, second = neighbours(keys)
        if not first:
            return
        differences = values[:, first] - values[:, second]
        self.judged = torch.cat([self.judged, differences], dim=1)[:, -max(PAIRS, len(first)) :]
        # A pair has no order: it counts both ways.
        self.rank = rank_correlation(*torch.cat([self.judged, -self.judged], dim=1))
        predicted, true = self.judged
        self.unit = float((predicted * true).sum() / predicted.square().sum().clamp_min(1e-12))

    def _learn(self, proposed: list[Look]) -> None:
        features = torch.cat([look.features for look in proposed])
        directions = F.normalize(torch.cat([look.gradient.flatten(1) for look in proposed]))
        sums = (features.T @ features, features.T @ directions)
        gram, products = (self.processes.count * self.processes.mean(part) for part in sums)
        if self.gram is not None and self.products is not None:
            kept = KEPT ** (len(features) * self.processes.count)
            gram = gram + kept * self.gram.to(gram)
            products = products + kept * self.products.to(products)
        self.gram, self.products = gram, products
        self._solve()

    def _solve(self) -> None:
        assert self.gram is not None and self.products is not None
        ridge = RIDGE * torch.eye(len(self.gram), device=self.gram.device)
        with full_precision(self.gram.device):
            self._slopes = torch.linalg.solve(self.gram + ridge, self.products)

    def warnings(self) -> list[str]:
        """Where it stood in during less than half of the updates."""
        if 2 * self.lent >= self.updates:
            return []
        return [
            f"its latent stand-in was used in {self.lent} of {self.updates} steps. Its rank correlation with unseen "
            f"scores, within a prompt, ended at {self.rank:.2f}, where {self.least_rank:g} is required, and its cosine "
            f"with unseen gradients at {self.cosine:.2f}, where {self.least_cosine:g} is required"
        ]

    def state_dict(self) -> dict[str, Any]:
        if self.gram is None:
            return {}
        return {
            "gram": self.gram,
            "products": self.products,
            "judged": self.judged,
            "cosines": list(self.cosines),
            "usual": dict(self.usual),
            "rank": self.rank,
            "cosine": self.cosine,
            "unit": self.unit,
            "updates": self.updates,
            "lent": self.lent,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        if not state:
            return
        self.gram, self.products, self.judged = state["gram"], state["products"], state["judged"].cpu()
        self.cosines, self.usual = list(state["cosines"]), dict(state["usual"])
        self.rank, self.cosine, self.unit = state["rank"], state["cosine"], state["unit"]
        self.updates, self.lent = state["updates"], state["lent"]
        self._solve()
