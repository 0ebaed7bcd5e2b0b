"""Generators of several steps in the engine: gradients against a chain written out, graphs, draws, failures."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.models.few_steps import step_count, with_steps
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.protocols import FewStepGenerator
from dipp_toolkit.training.engine import Engine
from kept_gradients import keep_gradients
from tiny import LATENT_SHAPE, PROMPTS, tiny_pipeline

BATCH = 5
Supervise = Literal["last", "every"]
WAYS = pytest.mark.parametrize("supervise", ["last", "every"])


class Chain:
    """A small curved generator of several steps, in double precision."""

    latent_shape = (3, 1, 1)
    alphas, sigmas = (0.0, 0.4, 0.7, 0.9), (1.0, 0.9, 0.7, 0.4)

    def __init__(self, steps: int = 4) -> None:
        torch.manual_seed(5)
        self.steps = steps
        self.network = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
        self.read: list[int] = []

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        assert self.steps == 1
        return self.read_out(noise, 0, condition)

    def read_out(self, x_t: Tensor, step: int, condition: Condition) -> Tensor:
        self.read.append(step)
        told = torch.full((len(x_t), 1), float(step), dtype=x_t.dtype)
        return self.network(torch.cat([x_t.flatten(1), told], 1)).reshape(x_t.shape)

    def noised(self, x0: Tensor, noise: Tensor, step: int) -> Tensor:
        return self.alphas[step] * x0 + self.sigmas[step] * noise

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        raise NotImplementedError


class Curved:
    """The term of the loss sum cos(2 x_0), which also remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, sample: Sample) -> TermResult:
        self.seen.append(sample.x0)
        assert not sample.x0.requires_grad
        return TermResult((2 * sample.x0).cos().flatten(1).sum(1), -2 * (2 * sample.x0).sin(), {"curl": 1.0})


class Watcher:
    """An assistant that remembers what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x_t

    def update(self, x0: Tensor, condition: Condition, random: torch.Generator) -> float:
        assert not x0.requires_grad
        self.shown.append(x0)
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def engine_of(generator: Any, supervise: Supervise = "last", **special: Any) -> Engine:
    optimizer = torch.optim.SGD(generator.network.parameters(), lr=1.0)
    terms = special.pop("terms", [WeightedTerm("curved", Curved())])
    random = torch.Generator().manual_seed(11)
    return Engine(
        generator, optimizer, Watcher(), terms, random, max_grad_norm=math.inf, supervise=supervise, **special
    )


def condition_of(count: int = BATCH) -> Condition:
    return Condition(("a",) * count)


def draws(count: int, shape: tuple[int, ...] = (BATCH, 3, 1, 1)) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(11)
    return (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(count))


def hand_written(generator: Chain, supervise: Supervise) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the mean loss by autograd through a chain written out, and the samples of each step."""
    noise, *between = draws(generator.steps)
    samples, x_t = [], noise
    for step in range(generator.steps):
        told = torch.full((BATCH, 1), float(step), dtype=torch.float64)
        samples.append(generator.network(torch.cat([x_t.flatten(1), told], 1)).reshape(noise.shape))
        if step + 1 < generator.steps:
            kept = samples[-1] if supervise == "last" else samples[-1].detach()
            x_t = generator.alphas[step + 1] * kept + generator.sigmas[step + 1] * between[step]
    looked_at = samples[-1:] if supervise == "last" else samples
    loss = torch.stack([(2 * item).cos().sum() / BATCH for item in looked_at]).mean()
    return list(torch.autograd.grad(loss, list(generator.network.parameters()))), samples


@WAYS
@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_chain_written_out(supervise: Supervise, steps: int, recompute: bool) -> None:
    generator = Chain(steps)
    assert isinstance(generator, FewStepGenerator)
    expected, samples = hand_written(generator, supervise)
    engine = engine_of(generator, supervise, recompute_generator=recompute)
    keep_gradients(engine)
    result = engine.update_generator(condition_of())
    for parameter, gradient in zip(generator.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-13)
    seen = engine.terms[0].term.seen  # type: ignore[attr-defined]
    looked_at = samples[-1:] if supervise == "last" else samples
    assert len(seen) == len(looked_at)
    values = [(2 * item).cos().flatten(1).sum(1) for item in looked_at]
    for mine, theirs in zip(seen, looked_at, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(result.results["curved"].value, torch.stack(values).mean(0).detach())
    assert result.results["curved"].details == {"curl": 1.0}
    by_step = [result.details[f"step_{k}/curved"] for k in range(1, steps + 1)] if supervise == "every" else []
    assert by_step == pytest.approx([value.mean().item() for value in values] if supervise == "every" else [])


def test_the_two_ways_differ() -> None:
    first, second = (hand_written(Chain(4), text)[0] for text in ("last", "every"))
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(first, second, strict=True))


@WAYS
def test_one_steps_graph_is_alive_at_a_time_where_every_step_is_supervised(supervise: Supervise) -> None:
    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    held: WeakSet[Held] = WeakSet()
    before: list[int] = []

    class Counting(Chain):
        def read_out(self, x_t: Tensor, step: int, condition: Condition) -> Tensor:
            before.append(len(held))
            return super().read_out(x_t, step, condition)

    def pack(tensor: Tensor) -> Held:
        one = Held(tensor)
        held.add(one)
        return one

    engine = engine_of(Counting(4), supervise)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.tensor):
        engine.update_generator(condition_of())
    if supervise == "every":
        assert before == [0, 0, 0, 0]
    else:
        assert before[0] == 0 and before[1] > 0 and before[3] >= 3 * before[1]


def test_the_assistant_sees_the_last_steps_samples_or_those_of_any_step() -> None:
    generator = Chain(4)
    engine = engine_of(generator)
    engine.update_assistant(condition_of())
    assert generator.read == [0, 1, 2, 3]
    torch.testing.assert_close(engine.assistant.shown[0], hand_written(generator, "last")[1][-1].detach())  # type: ignore[attr-defined]

    generator = Chain(4)
    engine = engine_of(generator, "every")
    lengths = []
    for _ in range(200):
        generator.read.clear()
        engine.update_assistant(condition_of())
        assert generator.read == list(range(len(generator.read)))
        lengths.append(len(generator.read))
    counts = [lengths.count(length) for length in (1, 2, 3, 4)]
    assert sum(counts) == 200 and min(counts) > 25, "each step is as likely as any other"


@WAYS
def test_one_step_draws_and_costs_what_it_did(supervise: Supervise) -> None:
    generator = Chain(1)
    expected, _ = hand_written(generator, supervise)
    engine = engine_of(generator, supervise)
    keep_gradients(engine)
    engine.update_generator(condition_of())
    assert generator.read == [0]
    random = torch.Generator().manual_seed(11)
    torch.randn((BATCH, 3, 1, 1), generator=random, dtype=torch.float64)
    assert torch.equal(engine.random.get_state(), random.get_state()), "one noise was drawn and nothing else"
    for parameter, gradient in zip(generator.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-13)


class FailsLater(Curved):
    """Answers for two steps and then fails, as a reward that dies does."""

    def __call__(self, sample: Sample) -> TermResult:
        if len(self.seen) == 2:
            raise RunError("The reward died.")
        return super().__call__(sample)


def test_a_term_that_fails_at_a_later_step_leaves_everything_as_it_was() -> None:
    generator = Chain(4)
    engine = engine_of(generator, "every", terms=[WeightedTerm("curved", FailsLater(), mixed=True)])
    engine.mix.balance = "normalised"
    weights, mix = copy.deepcopy(generator.network.state_dict()), copy.deepcopy(engine.mix.state_dict())
    with pytest.raises(RunError, match="The reward died"):
        engine.update_generator(condition_of())
    assert engine.mix.state_dict() == mix
    assert all(torch.equal(weights[name], value) for name, value in generator.network.state_dict().items())


@WAYS
def test_a_diffusers_network_in_four_steps_is_the_formula_written_out(supervise: Supervise, tmp_path: Path) -> None:
    reference = DiffusersReference.load(str(tiny_pipeline(tmp_path / "reference")))
    generator = DiffusersGenerator.from_reference(reference).in_steps(4)
    condition = reference.encode(PROMPTS)
    engine = engine_of(generator, supervise)
    random = torch.Generator().manual_seed(11)
    noise, *between = (torch.randn((len(PROMPTS), *LATENT_SHAPE), generator=random) for _ in range(4))
    products = DDPMScheduler.from_config(reference.scheduler.config).alphas_cumprod
    samples, x_t = [], noise
    for step, time in enumerate((999, 749, 499, 249)):
        samples.append(generator.family.forward(generator.network, x_t, torch.full((len(noise),), time), condition))
        if step < 3:
            kept = samples[-1] if supervise == "last" else samples[-1].detach()
            next_one = products[(749, 499, 249)[step]]
            x_t = next_one.sqrt() * kept + (1 - next_one).sqrt() * between[step]
    looked_at = samples[-1:] if supervise == "last" else samples
    loss = torch.stack([(2 * item).cos().sum() / len(noise) for item in looked_at]).mean()
    parameters = list(generator.network.parameters())
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    keep_gradients(engine)
    engine.update_generator(condition)
    torch.testing.assert_close(engine.terms[0].term.seen[-1], samples[-1].detach(), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]
    largest = max(item.abs().max().item() for item in expected if item is not None)
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5 * largest)


def test_an_image_does_not_depend_on_its_place_in_the_batch(tmp_path: Path, noise: Tensor) -> None:
    reference = DiffusersReference.load(str(tiny_pipeline(tmp_path / "reference")))
    generator = DiffusersGenerator.from_reference(reference).in_steps(3)
    condition = reference.encode(PROMPTS)
    with torch.no_grad():
        together = generator.generate(noise, condition)
        alone = generator.generate(noise[2:3], condition[[2]])
        single = generator.in_steps(1).generate(noise, condition)
    torch.testing.assert_close(together[2:3], alone, rtol=1e-5, atol=1e-5)
    assert (together - single).abs().max() > 1e-3


def test_a_number_of_steps_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    reference = DiffusersReference.load(str(tiny_pipeline(tmp_path / "reference")))
    generator = DiffusersGenerator.from_reference(reference)
    for steps in (0, 9):
        with pytest.raises(RequestError, match=f"cannot take {steps} steps; expected 1 to 8"):
            generator.in_steps(steps)
    with pytest.raises(RequestError, match="cannot take 0 steps; expected 1 to 8"):
        with_steps(generator, 0, "mine")
    assert step_count(with_steps(generator, 3, "mine")) == 3
    assert with_steps(generator, None, "mine") is generator
    with pytest.raises(RequestError, match=r"'mine' was saved to take 5 steps. Set generator_steps=5"):
        with_steps(generator.in_steps(5), None, "mine")
    with pytest.raises(RequestError, match=r"'mine' takes 4 steps, and only diffusers pipelines"):
        with_steps(Chain(4), 1, "mine")
