"""The naive implementation that benchmarks compare with computes the same gradients, the wasteful way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.naive_baseline.baseline import Draws, NaiveTrainer
from benchmarks.naive_baseline.dmd2 import DMD2Trainer
from benchmarks.naive_baseline.rewards import PlainReward
from dipp_emoji import WEIGHTS
from dipp_toolkit import TrainConfig
from dipp_toolkit.training.setup.assembly import Assembled, assemble
from dipp_toolkit.training.setup.resolve import resolve

BATCH = 3
SETTINGS: dict[str, Any] = {
    "generator": "emoji-onestep",
    "precision": "fp32",
    "batch_size": BATCH,
    "max_grad_norm": 1e9,
    "eval_count": 1,
    "device": "cpu",
}


class Recorded:
    """A time sampling that remembers what it drew."""

    def __init__(self, sampling: Any):
        self.sampling = sampling

    def __call__(self, x0: Tensor, random: torch.Generator) -> Any:
        self.draw = self.sampling(x0, random)
        return self.draw


def gradients(network: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


def before_step(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[Tensor]:
    """Filled, at the optimiser's step, with the gradients that it sees."""
    seen: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(gradients(network).clone()))
    return seen


@pytest.fixture(scope="module", params=[1.5, 1.0])
def parts(request: pytest.FixtureRequest) -> Assembled:
    return assemble(resolve(TrainConfig(guidance=request.param, **SETTINGS)))


def naive_twin(parts: Assembled, trainer: Any = NaiveTrainer, **more: Any) -> Any:
    """Another trainer of the same networks, rewards and weights."""
    weights = {weighted.name.removeprefix("reward/"): weighted.weight for weighted in parts.engine.terms}
    rewards = [(PlainReward(reward), weights[name]) for name, reward in parts.rewards.items()]
    term: Any = parts.engine.terms[0].term
    return trainer(
        WEIGHTS / "onestep", WEIGHTS / "reference", rewards, fake=WEIGHTS / "onestep" / "assistant",
        guidance=term.guidance, precision=None, **more,
    )  # fmt: skip


def check_same(actual: Tensor, expected: Tensor) -> None:
    assert expected.norm() > 0
    assert F.cosine_similarity(actual, expected, dim=0) > 1 - 1e-4
    torch.testing.assert_close(actual.norm(), expected.norm(), rtol=1e-4, atol=0)


def test_both_updates_have_the_toolkits_gradients(parts: Assembled, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same noises and times, at the same weights: first the assistant's update, then the generator's."""
    naive, engine = naive_twin(parts), parts.engine
    term: Any = engine.terms[0].term
    monkeypatch.setattr(term, "sampling", Recorded(term.sampling))
    monkeypatch.setattr(parts.assistant, "sampling", Recorded(parts.assistant.sampling))
    pure: list[Tensor] = []
    draw_noise = engine.draw_noise
    monkeypatch.setattr(engine, "draw_noise", lambda *words: pure.append(draw_noise(*words)) or pure[-1])

    batch = parts.conditions[range(BATCH)]
    seen = before_step(parts.assistant.optimizer, parts.assistant.denoiser.network)
    with torch.no_grad():
        naive.fake.load_state_dict(parts.assistant.denoiser.network.state_dict())
    engine.update_assistant(batch)
    draw = parts.assistant.sampling.draw
    naive.fake_loss(batch.prompts, Draws(pure.pop(), draw.t, draw.noise)).backward()
    check_same(gradients(naive.fake), seen[0])

    naive.fake.load_state_dict(parts.assistant.denoiser.network.state_dict())
    seen = before_step(engine.optimizer, parts.generator.network)
    engine.update_generator(batch)
    draw = term.sampling.draw
    loss, log = naive.generator_loss(batch.prompts, Draws(pure.pop(), draw.t, draw.noise))
    loss.backward()
    check_same(gradients(naive.generator), seen[0])
    assert set(log) == {"loss_dm", "gradient_norm", "reward_0", "reward_1"}


def test_dmd2s_loop_has_the_toolkits_gradients(parts: Assembled, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the generator's update, then the assistant's on the generator's own samples, as with `reuse_samples`."""
    engine, batch = parts.engine, parts.conditions[range(BATCH)]
    other = naive_twin(parts, DMD2Trainer, prompts=batch.prompts, clip=1e9)
    term: Any = engine.terms[0].term
    monkeypatch.setattr(term, "sampling", Recorded(term.sampling))
    monkeypatch.setattr(parts.assistant, "sampling", Recorded(parts.assistant.sampling))
    monkeypatch.setattr(engine, "reuse_samples", True)
    pure: list[Tensor] = []
    draw_noise = engine.draw_noise
    monkeypatch.setattr(engine, "draw_noise", lambda *words: pure.append(draw_noise(*words)) or pure[-1])
    other.generator.load_state_dict(parts.generator.network.state_dict())
    other.fake.load_state_dict(parts.assistant.denoiser.network.state_dict())
    ours = before_step(engine.optimizer, parts.generator.network)
    ours_fake = before_step(parts.assistant.optimizer, parts.assistant.denoiser.network)
    theirs, theirs_fake = before_step(other.optimizer, other.generator), before_step(other.fake_optimizer, other.fake)
    engine.update_generator(batch)
    assert engine.fresh_rounds == 0
    engine.update_assistants([])
    assert len(pure) == 1, "the generator ran once"
    draws = [
        Draws(pure[0], sampling.draw.t, sampling.draw.noise) for sampling in (term.sampling, parts.assistant.sampling)
    ]
    log = other.step([batch.prompts], draws)
    check_same(theirs[0], ours[0])
    check_same(theirs_fake[0], ours_fake[0])
    assert set(log) == {"loss", "loss_fake", "norm", "fake_norm", "loss_dm", "reward_0", "reward_1"}
    monkeypatch.setattr(engine, "kept", None)


def test_a_step_of_the_naive_implementation_moves_all_its_networks() -> None:
    naive = NaiveTrainer(WEIGHTS / "onestep", WEIGHTS / "reference", [], guidance=1.5)
    before = [next(network.parameters()).clone() for network in (naive.generator, naive.fake, naive.average)]
    log = naive.step([["a dog on red"], ["a cat on blue"]])
    after = [next(network.parameters()) for network in (naive.generator, naive.fake, naive.average)]
    assert all(not torch.equal(first, other) for first, other in zip(before, after, strict=True))
    assert all(torch.isfinite(torch.tensor(number)) for number in log.values())
