r"""A surrogate network, fitted online to the black box's scores, whose gradient stands in for the missing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..processes import Processes
from ..processes.draws import shared_by_all
from ..sharing import load_trainable_state, trainable_state
from ..terms.base import Sample
from .base import Estimate, Score
from .network import SurrogateNetwork, pooled

MEMORY = 2048
BATCH = 64
LEARNING_RATE = 1e-3
CORRELATION_DECAY = 0.9


def rank_correlation(a: Float[Tensor, " batch"], b: Float[Tensor, " batch"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; 0 where one side is constant."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(torch.stack([a, b]).double().cpu().numpy(), axis=1))
    centred = ranks - ranks.mean(1, keepdim=True)
    lengths = centred.norm(dim=1).prod().item()
    return (centred[0] @ centred[1]).item() / lengths if lengths > 0 else 0.0


@dataclass
class Memory:
    """The newest scored samples, a ring of fixed size; rows are overwritten oldest first."""

    size: int = MEMORY
    rows: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, **new: Tensor) -> None:
        """Take rows in, the same number of each."""
        length = len(next(iter(new.values())))
        where = torch.arange(self.count, self.count + length) % self.size
        for name, tensor in new.items():
            if name not in self.rows:
                self.rows[name] = tensor.new_zeros(self.size, *tensor.shape[1:])
            self.rows[name][where.to(tensor.device)] = tensor
        self.count += length

    def __len__(self) -> int:
        return min(self.count, self.size)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """These rows."""
        return {name: tensor[index] for name, tensor in self.rows.items()}


@dataclass
class Surrogate:
    r"""Fits $\hat r_\phi(x_0, c)$ to the scores of the generator's own samples and lends its gradient.

    The reward is asked for numbers alone, a surrogate that learns beside the generator gives the gradients: the
    decoupling of TDM-R1 (arXiv 2603.07700). Each new batch is predicted before it is learned from, so the rank
    correlation between prediction and score is measured on samples that the surrogate has never seen. While its running
    mean is below `trust`, the gradient is 0: a surrogate that knows nothing moves nothing.

    It costs one score a sample.

    Attributes:
        trust: rank correlation from which the gradient is used.
        rounds: updates of the surrogate a step, each on 64 samples of the newest 2048.
        seed: of its weights.
        device: where it lives.
        correlation: running mean of the rank correlation with unseen scores.
        batches: batches seen.
        trusted: batches whose gradient was used.
        processes: those that learn together.
    """

    trust: float = 0.4
    rounds: int = 8
    seed: int = 0
    device: torch.device | str = "cpu"
    correlation: float = 0.0
    batches: int = 0
    trusted: int = 0
    memory: Memory = field(default_factory=Memory)
    network: SurrogateNetwork | None = None
    optimizer: torch.optim.Optimizer | None = None
    processes: Processes = field(default_factory=Processes)

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        """As `GradientEstimator` says; latents are `(batch, channels, height, width)`."""
        scores = self.processes.together(lambda: score(sample.x0, sample.condition.prompts))
        text = pooled(sample.condition)
        # Every process learns from all samples, and so the same.
        gather = self.processes.gather
        seen, told = gather(sample.x0.float()), gather(scores)
        read = None if text is None else gather(text)
        with torch.autocast(sample.x0.device.type, enabled=False):
            network = self._network(sample.x0, text)
            predicted = self._predict(network, seen, read)
            if self.batches:  # nothing has been learned before the first batch
                self._note(rank_correlation(predicted, told))
            self.batches += 1
            self.memory.add(x0=seen, scores=told, **({} if read is None else {"text": read}))
            loss = self._fit(network, shared_by_all(sample.random))
            trusted = self.batches > 1 and self.correlation >= self.trust
            self.trusted += trusted
            gradient = self._gradient(network, sample.x0.float(), text) if trusted else torch.zeros_like(sample.x0)
        details: dict[str, float | Tensor] = {
            "rank_correlation": self.correlation,
            "trusted": float(trusted),
            "surrogate_loss": loss,
        }
        return Estimate(scores, gradient.to(sample.x0), details)

    def _note(self, correlation: float) -> None:
        share = (1 - CORRELATION_DECAY) / (1 - CORRELATION_DECAY**self.batches)
        self.correlation += share * (correlation - self.correlation)

    def _network(self, x0: Tensor, text: Tensor | None) -> SurrogateNetwork:
        if self.network is None:
            self._build(x0.shape[1], 0 if text is None else text.shape[1])
        assert self.network is not None
        return self.network

    def _build(self, channels: int, text: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = SurrogateNetwork(channels, text).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=LEARNING_RATE)

    def _standard(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scores in memory; a constant score is not blown up."""
        scores = self.memory.rows["scores"][: len(self.memory)]
        return scores.mean(), scores.std(correction=0).clamp_min(1e-6)

    @torch.no_grad()
    def _predict(self, network: nn.Module, x0: Tensor, text: Tensor | None) -> Tensor:
        found: Tensor = network(x0, text)
        return found

    def _fit(self, network: SurrogateNetwork, random: torch.Generator) -> Tensor:
        assert self.optimizer is not None
        mean, deviation = self._standard()
        losses = []
        for _ in range(self.rounds):
            index = torch.randint(len(self.memory), (BATCH,), generator=random, device=random.device)
            rows = self.memory.take(index)
            with torch.enable_grad():
                predicted = network(rows["x0"], rows.get("text"))
                loss = nn.functional.mse_loss(predicted, (rows["scores"] - mean) / deviation)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _gradient(self, network: nn.Module, x0: Tensor, text: Tensor | None) -> Tensor:
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(network(leaf, text).sum(), leaf)
        return gradient * self._standard()[1]

    def warnings(self) -> list[str]:
        """Where the surrogate was trusted for less than half of the steps."""
        if 2 * self.trusted >= self.batches:
            return []
        return [
            f"its surrogate was trusted in {self.trusted} of {self.batches} steps, and its rank correlation with "
            f"unseen scores ended at {self.correlation:.2f}, where {self.trust:g} is asked for. Give it more samples a "
            "step, or use black_box=smoothing."
        ]

    def state_dict(self) -> dict[str, Any]:
        if self.network is None or self.optimizer is None:
            return {}
        return {
            "network": trainable_state(self.network),
            "optimizer": self.optimizer.state_dict(),
            "memory": dict(self.memory.rows),
            "count": self.memory.count,
            "correlation": self.correlation,
            "batches": self.batches,
            "trusted": self.trusted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        rows = {name: tensor.to(self.device) for name, tensor in state["memory"].items()}
        self._build(rows["x0"].shape[1], rows["text"].shape[1] if "text" in rows else 0)
        assert self.network is not None and self.optimizer is not None
        load_trainable_state(self.network, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.memory = Memory(len(rows["x0"]), rows, state["count"])
        self.correlation, self.batches, self.trusted = state["correlation"], state["batches"], state["trusted"]
