r"""A surrogate network, fitted online to the black box's scores, whose gradient stands in for the missing one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...diffusion.condition import Condition
from ...distributed import Processes
from ...models.weight_sharing import load_trainable_state, trainable_state
from ...utils.deterministic import pooled_to
from ...utils.rank_correlation import rank_correlation
from ..base import Sample
from .base import Estimate, Score
from .memory import KEYS, SCORES, Memory, Pairs, Rows, chosen_rows, joined_rows, neighbours, prompt_key

GROUPS = 8
SMALLEST_SIDE = 4
GRID = 4
"""Places each way at which the last features are read."""
COARSE = 8
"""Places each way at which the latents themselves are read."""
WHOLE_PROMPT = ("pooled_projections", "text_embeds")
"""What networks call an embedding of the whole prompt."""


def pooled(condition: Condition) -> Float[Tensor, "batch features"] | None:
    """One vector a prompt; None where the network reads no prompt.

    Where the text encoder gives one for the whole prompt, it is that: CLIP's of SDXL, Stable Diffusion 3 and Flux.
    Elsewhere it is the mean over the tokens that the mask keeps (T5's of PixArt), and over all tokens without a mask:
    each padding of Stable Diffusion's CLIP, whose attention is causal, has read the whole prompt.
    """
    tensors = condition.tensors
    for name in WHOLE_PROMPT:
        if name in tensors:
            return tensors[name].float()
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.ndim == 3:
            kept = _kept(condition, tensor)
            return (tensor.float() * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp_min(1)
    return None


def _kept(condition: Condition, tokens: Float[Tensor, "batch tokens features"]) -> Float[Tensor, "batch tokens"]:
    """1 for a token that counts, 0 for padding."""
    for name, tensor in condition.tensors.items():
        if name.endswith("mask") and tensor.shape == tokens.shape[:2]:
            return (tensor > 0).float()
    return tokens.new_ones(tokens.shape[:2], dtype=torch.float32)


class Block(nn.Module):
    """Two convolutions around a skip, shifted and scaled by the prompt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv_in, self.conv_out = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.prompt = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        scale, shift = self.prompt(prompt)[..., None, None].chunk(2, dim=1)
        inner = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return x + self.conv_out(F.silu(inner))


def _from_nothing(features: int) -> nn.Linear:
    """A linear map that is 0 until it has learned."""
    layer = nn.Linear(features, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class SurrogateNetwork(nn.Module):
    """A small residual network over latents. Three readings are added up: a nonlinear one of the last features' means
    and deviations over all places, a linear one of these features at `GRID` x `GRID` places, and a linear one of the
    latents themselves at `COARSE` x `COARSE` places, which is what few samples suffice for.

    Args:
        channels: of the latents.
        text: features of a pooled prompt; 0 without one.
        width: of every layer.
        blocks: residual blocks; before and between them the resolution is halved, down to 4.
    """

    def __init__(self, channels: int, text: int, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.text = nn.Sequential(nn.LayerNorm(text), nn.Linear(text, width), nn.SiLU()) if text else None
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))
        self.places, self.latents = _from_nothing(width * GRID**2), _from_nothing(channels * COARSE**2)

    def forward(
        self, x0: Float[Tensor, "batch channels height width"], text: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        """Predicted scores, in deviations within a prompt; what all samples of a prompt share is left open."""
        x = self.stem(x0)
        prompt = self.text(text) if self.text is not None else x.new_zeros(len(x), self.width)
        for index, block in enumerate(self.blocks):
            if index and min(x.shape[-2:]) >= 2 * SMALLEST_SIDE:
                x = F.avg_pool2d(x, 2)
            x = block(x, prompt)
        features = F.silu(x)
        spread = features.var((2, 3), correction=0).add(1e-6).sqrt()
        score = self.head(torch.cat([features.mean((2, 3)), spread], dim=1))
        score = score + self.places(pooled_to(features, GRID).flatten(1))
        score = score + self.latents(pooled_to(x0, COARSE).flatten(1))
        return score[:, 0]


class FlatSurrogate(nn.Module):
    """The same for latents that are no pictures: a linear reading of all numbers, and a small network's, which is 0
    until it has learned.

    Args:
        size: of a sample.
        text: features of a pooled prompt; 0 without one.
        width: of the hidden layer.
    """

    def __init__(self, size: int, text: int, width: int = 32) -> None:
        super().__init__()
        self.latents = _from_nothing(size)
        self.hidden, self.head = nn.Linear(size + text, width), _from_nothing(width)

    def forward(
        self, x0: Float[Tensor, "batch ..."], text: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        """Predicted scores, in deviations within a prompt; what all samples of a prompt share is left open."""
        flat = x0.flatten(1)
        both = flat if text is None else torch.cat([flat, text], dim=1)
        return (self.latents(flat) + self.head(F.silu(self.hidden(both))))[:, 0]


def surrogate_network(shape: Sequence[int], text: int) -> nn.Module:
    """A network that has learned nothing yet, for latents of a shape.

    Args:
        shape: of a sample.
        text: features of a pooled prompt; 0 without one.
    """
    if len(shape) == 3 and min(shape[1:]) >= 2:
        return SurrogateNetwork(shape[0], text)
    return FlatSurrogate(math.prod(shape), text)


BATCH = 32
"""Pairs of a round."""
LEARNING_RATE = 1e-3
JUDGED = 96
"""Newest pairs that trust is measured on; all of an update's, where those are more."""
ENOUGH = 32
"""Pairs without which nothing is trusted."""
Lesson = Callable[[nn.Module, torch.Generator], Tensor]
"""The loss of a network on samples that are drawn from a random source."""


def predict(network: nn.Module, rows: Rows, chosen: Int[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """What a network says of these rows."""
    scores: Tensor = network(rows["x0"][chosen], rows["text"][chosen] if "text" in rows else None)
    return scores


@dataclass
class Surrogate:
    r"""Fits $\hat r_\phi(x_0, c)$ to the scores of the generator's own samples and lends its gradient.

    The reward gives scores alone, and a surrogate that learns beside the generator gives the gradients: the
    decoupling of TDM-R1 (arXiv 2603.07700). What can move a sample is how its score differs from that of another
    sample of the same prompt; how prompts differ moves nothing, and may be ten times as much. So the generator's batch
    holds `noises_per_prompt` samples of each prompt, and the surrogate is fitted to differences within a prompt,

    $$\min_\phi E_{c} E_{x, y | c} \Big[ \hat r_\phi(x, c) - \hat r_\phi(y, c) - \frac{r(x, c) - r(y, c)}{\sigma}
      \Big]^2,$$

    $\sigma$ the deviation of a score within its prompt; the gradient lent is $\sigma \nabla_x \hat r_\phi$, in the
    score's units. Pairs are formed of all samples of a prompt that are remembered.

    An update's pairs are predicted before they are learned from, so the rank correlation between predicted and true
    differences is measured on samples that the surrogate has never seen. While it is below `trust` over the newest
    pairs, the gradient is 0: a surrogate that knows nothing moves nothing.

    It learns once an update, from all its passes and in every process from all samples; within an update every pass
    is lent the gradient of the same network. It costs one score a sample.

    Attributes:
        trust: rank correlation of differences within a prompt from which the gradient is used.
        rounds: fits of the surrogate an update, each to 32 pairs of the newest 2048 samples.
        seed: of its weights and of the pairs that are drawn.
        device: where it lives.
        correlation: over the newest pairs, of differences that were unseen.
        updates: generator updates that it has learned from.
        trusted: updates in which its gradient was used.
        restarted: whether it began again in a run that went on, whose checkpoint an older version wrote.
        judged: predicted and true differences of the newest pairs.
        waiting: samples of the last update whose prompt had no second one in it: that may come in the next.
        processes: those that learn together.
    """

    noises_per_prompt: ClassVar[int] = 2

    trust: float = 0.4
    rounds: int = 8
    seed: int = 0
    device: torch.device | str = "cpu"
    correlation: float = 0.0
    updates: int = 0
    trusted: int = 0
    restarted: bool = False
    memory: Memory = field(default_factory=Memory)
    judged: Float[Tensor, "2 pairs"] = field(default_factory=lambda: torch.zeros(2, 0))
    waiting: Rows = field(default_factory=dict)
    network: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    processes: Processes = field(default_factory=Processes)
    deviation: Tensor = field(default_factory=lambda: torch.zeros(()))
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    _proposed: list[Rows] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def is_trusted(self) -> bool:
        """Whether its gradient is used in the update under way."""
        return self.judged.shape[1] >= ENOUGH and self.correlation >= self.trust

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        """As `GradientEstimator` says."""
        scores = self.processes.together(lambda: score(sample.x0, sample.condition.prompts))
        text = pooled(sample.condition)
        keys = [prompt_key(prompt, sample.readout) for prompt in sample.condition.prompts]
        rows = {KEYS: torch.tensor(keys, device=sample.x0.device), SCORES: scores.float(), "x0": sample.x0.float()}
        if text is not None:
            rows["text"] = text
        self._proposed.append({name: self.processes.gather(tensor.detach()) for name, tensor in rows.items()})
        gradient = self.lend(sample) if self.is_trusted else torch.zeros_like(sample.x0)
        details: dict[str, float | Tensor] = {
            "rank_correlation": self.correlation,
            "trusted": float(self.is_trusted),
        }
        if len(self.memory):
            details["surrogate_loss"] = self.loss
        return Estimate(scores, gradient, details)

    def commit(self) -> None:
        """Judge the surrogate by the update's samples, then learn from them."""
        if not self._proposed:
            return
        self.trusted += self.is_trusted
        self.updates += 1
        parts = [self.waiting, *self._proposed] if self.waiting else self._proposed
        waited = len(next(iter(self.waiting.values()), ()))
        rows = joined_rows(parts)
        self._proposed = []
        network = self._network(rows)
        with torch.no_grad():  # what is waited for, once an update
            scores, predicted = torch.stack([rows[SCORES], network(rows["x0"], rows.get("text"))]).cpu()
        keys = rows[KEYS].tolist()
        if len(self.memory):  # nothing has been learned before
            self._judge(keys, scores, predicted)
        counts = Counter(keys)
        lone = [place for place, key in enumerate(keys) if counts[key] == 1 and place >= waited]
        self.waiting = chosen_rows(rows, lone)
        self.memory.add(chosen_rows(rows, sorted(set(range(len(keys))) - set(lone))))
        if len(self.memory):
            self._fit(network)

    def discard(self) -> None:
        """Forget the update's samples."""
        self._proposed = []

    def _judge(self, keys: list[int], scores: Tensor, predicted: Tensor) -> None:
        first, second = neighbours(keys)
        if not first:
            return
        differences = torch.stack([values[first] - values[second] for values in (predicted, scores)])
        self.judged = torch.cat([self.judged, differences], dim=1)[:, -max(JUDGED, len(first)) :]
        # A pair has no order: it counts both ways.
        self.correlation = rank_correlation(*torch.cat([self.judged, -self.judged], dim=1))

    def _network(self, rows: Rows) -> nn.Module:
        if self.network is None:
            self._build(rows)
        assert self.network is not None
        return self.network

    def _build(self, rows: Rows) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = surrogate_network(rows["x0"].shape[1:], rows["text"].shape[1] if "text" in rows else 0)
            self.network = network.to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=LEARNING_RATE)

    def _fit(self, network: nn.Module) -> None:
        assert self.optimizer is not None
        rows = self.memory.rows
        # A source of its own: every process, and a resumed run, draws the same samples.
        random = torch.Generator(rows["x0"].device).manual_seed(self.seed * 1_000_003 + self.updates)
        lesson, losses = self.lesson(rows), []
        for _ in range(self.rounds):
            with torch.enable_grad():
                loss = lesson(network, random)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        self.loss = torch.stack(losses).mean()

    def lesson(self, rows: Rows) -> Lesson:
        """What a round minimises, on samples of a memory that it draws; settles `deviation` as well."""
        pairs = Pairs.among(rows)
        self.deviation = pairs.deviation.clamp_min(1e-6)  # a constant score is not blown up

        def loss(network: nn.Module, random: torch.Generator) -> Tensor:
            first, second = pairs.draw(BATCH, random)
            predicted = predict(network, rows, torch.cat([first, second]))
            difference = (rows[SCORES][first] - rows[SCORES][second]) / self.deviation
            return (predicted[: len(first)] - predicted[len(first) :] - difference).square().mean() / 2

        return loss

    def lend(self, sample: Sample) -> Float[Tensor, "batch ..."]:
        """Its gradient of each score, trusted or not; it has learned from one update at least."""
        assert self.network is not None
        with torch.enable_grad(), torch.autocast(sample.x0.device.type, enabled=False):
            leaf = sample.x0.detach().float().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.network(leaf, pooled(sample.condition)).sum(), leaf)
        return (gradient * self.deviation).to(sample.x0)

    def warnings(self) -> list[str]:
        """Where the surrogate was trusted for less than half of the updates."""
        if 2 * self.trusted >= self.updates:
            return []
        restarted = (
            " It began again where the run went on, because the checkpoint's version kept no prompts with its samples."
        )
        return [
            f"its surrogate was trusted in {self.trusted} of {self.updates} steps, and its rank correlation with "
            f"unseen scores, within a prompt, ended at {self.correlation:.2f}, where {self.trust:g} is required. Give "
            f"it more samples a step, or use black_box=smoothing.{restarted if self.restarted else ''}"
        ]

    def state_dict(self) -> dict[str, Any]:
        if self.network is None or self.optimizer is None:
            return {}
        return {
            "network": trainable_state(self.network),
            "optimizer": self.optimizer.state_dict(),
            "memory": dict(self.memory.tensors),
            "count": self.memory.count,
            "waiting": dict(self.waiting),
            "judged": self.judged,
            "correlation": self.correlation,
            "deviation": self.deviation,
            "loss": self.loss,
            "updates": self.updates,
            "trusted": self.trusted,
            "restarted": self.restarted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. A state of before prompts were kept is of no use: it begins again."""
        if not state:
            return
        if "judged" not in state:
            self.restarted = True
            return
        self.memory.tensors = _moved(state["memory"], self.device)
        self.memory.count, self.waiting = state["count"], _moved(state["waiting"], self.device)
        self._build(self.memory.tensors or self.waiting)
        assert self.network is not None and self.optimizer is not None
        load_trainable_state(self.network, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.judged, self.correlation = state["judged"], state["correlation"]
        self.deviation, self.loss = state["deviation"].to(self.device), state["loss"].to(self.device)
        self.updates, self.trusted, self.restarted = state["updates"], state["trusted"], state["restarted"]


def _moved(rows: Mapping[str, Tensor], device: torch.device | str) -> Rows:
    return {name: tensor.to(device) for name, tensor in rows.items()}
