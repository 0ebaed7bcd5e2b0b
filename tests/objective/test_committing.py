"""What lasts moves once an update: terms and the mix commit after its passes, or discard what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RunError
from dipp_toolkit.objective.base import Committing, Sample, TermResult
from dipp_toolkit.objective.estimators.base import Estimate, Score
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.training.engine import Engine
from dipp_toolkit.training.guard import Guard


class Line:
    """A generator of one weight."""

    latent_shape = (1, 2, 2)

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1, bias=False)

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        return self.network(noise.unsqueeze(-1)).squeeze(-1)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        raise NotImplementedError


class Nobody:
    """An assistant that no term looks at."""

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x_t

    def update(self, x0: Tensor, condition: Condition, random: torch.Generator) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


@dataclass
class Counting:
    """A term that notes what it is told, and fails or breaks at a call."""

    fails_at: int = 0
    broken_at: int = 0
    calls: int = 0
    said: list[str] = field(default_factory=list)

    def __call__(self, sample: Sample) -> TermResult:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RunError("It died.")
        grad = torch.ones_like(sample.x0) * (torch.nan if self.calls == self.broken_at else 1.0)
        return TermResult(torch.arange(len(sample.x0)).float(), grad)

    def commit(self) -> None:
        self.said.append("commit")

    def discard(self) -> None:
        self.said.append("discard")


def engine_of(term: Counting, guard: Guard | None = None) -> Engine:
    generator = Line()
    return Engine(
        generator,
        torch.optim.SGD(generator.network.parameters(), lr=0.1),
        Nobody(),
        [WeightedTerm("counting", term, mixed=True)],
        torch.Generator().manual_seed(0),
        accumulation=4,
        guard=guard,
    )


def update(engine: Engine) -> str:
    return engine.update_generator(Condition(("",) * 8)).skipped


def test_an_update_of_four_passes_commits_once() -> None:
    engine = engine_of(term := Counting())
    assert update(engine) == "" and update(engine) == ""
    assert (term.calls, term.said) == (8, ["commit", "commit"])
    assert engine.mix.statistics["counting"].updates == 2


def test_a_skipped_update_discards_in_terms_and_mix() -> None:
    engine = engine_of(term := Counting(broken_at=3), Guard())
    assert "not finite" in update(engine)
    assert term.said == ["discard"] and not engine.mix.statistics
    assert update(engine) == ""
    assert term.said == ["discard", "commit"]


def test_a_failed_update_discards_in_terms_and_mix() -> None:
    engine = engine_of(term := Counting(fails_at=3))
    with pytest.raises(RunError, match="It died"):
        update(engine)
    assert term.said == ["discard"] and not engine.mix.statistics


@dataclass
class Estimator(Counting):
    """Stands in for what learns within an update."""

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        return Estimate(score(sample.x0, sample.condition.prompts), torch.ones_like(sample.x0))

    def warnings(self) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


class Box:
    """A black box."""

    differentiable = False

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.flatten(1).mean(1)


def test_rewards_pass_it_on_to_their_estimators() -> None:
    estimator = Estimator()
    term = RewardTerm("box", Box(), lambda latents: latents, estimator=estimator)
    for item in (term, RewardSum({"box": term}, {"box": 1.0})):
        assert isinstance(item, Committing)
        item.commit()
        item.discard()
    assert estimator.said == ["commit", "discard"] * 2
