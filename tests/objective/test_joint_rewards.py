"""Rewards that are only added up go through the decoder together: the gradients of separate passes, and when not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import MEASURE_EVERY
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import Interrupted, RunError
from dipp_toolkit.models.decoding import RisingClamp
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.estimators.smoothing import Smoothing
from dipp_toolkit.objective.evaluate import WeightedTerm, evaluate_objective, find_cause
from dipp_toolkit.objective.mixing.floors import Floor
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.mixing.scale import MEASURED, RewardScale
from dipp_toolkit.objective.result import ObjectiveResult, joined
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.shared_decode import SharedDecode
from tiny_runs import BLUE, StopAt, assert_same_bits, blue_settings, metrics, runs_in

BATCH = 6
JOINT = MEASURED + 1
"""An update in which nothing is measured."""


class Decoder:
    """Latents `(B, 3, 4, 4)` to images that leave [0, 1] here and there; counts its passes back."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 3, 3, padding=1)
        ).requires_grad_(False)
        self.forwards = self.backwards = 0

    def pixels(self, latents: Tensor) -> Tensor:
        self.forwards += 1
        pixels = self.layers(latents) * 2
        if pixels.requires_grad:
            pixels.register_hook(lambda gradient: self._count())
        return pixels + 0.5

    def _count(self) -> None:
        self.backwards += 1

    def __call__(self, latents: Tensor) -> Tensor:
        return RisingClamp.apply(self.pixels(latents))  # type: ignore[no-any-return]


@dataclass
class Waves:
    """A reward with a gradient of either sign."""

    number: int
    differentiable: bool | None = True
    broken: bool = False

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.broken:
            images = images * float("nan")
        wave = torch.linspace(-1 - self.number, 2, images[0].numel()).reshape(images[0].shape)
        scores = (images * 3 + wave * (1 + self.number)).sin().flatten(1).sum(1)
        return scores if self.differentiable else scores.detach()


@dataclass
class Divergence:
    """A term that is not a reward."""

    def __call__(self, sample: Sample) -> TermResult:
        return TermResult(sample.x0.flatten(1).sum(1), sample.x0.sin(), {"kl": torch.tensor(0.1)})


@dataclass
class World:
    """Rewards of one decoder beside a divergence.

    Attributes:
        weights: of the rewards.
        batch: samples decoded at a time.
        decode: wraps the decoder.
        black: numbers of rewards without a gradient.
    """

    weights: Sequence[float]
    batch: int = 0
    decode: Callable[[Decoder], Any] = lambda decoder: decoder
    black: Sequence[int] = ()
    decoder: Decoder = field(default_factory=Decoder)
    rewards: list[Waves] = field(default_factory=list)

    def terms(self) -> list[WeightedTerm]:
        shared = SharedDecode(self.decode(self.decoder), len(self.weights))
        self.rewards = [Waves(k, k not in self.black) for k in range(len(self.weights))]
        rewards = [
            WeightedTerm(
                f"reward/{k}",
                RewardTerm(str(k), reward, shared, self.batch, Smoothing(2, 0.1, 2), ascended=weight >= 0),
                weight,
                mixed=True,
            )
            for (k, reward), weight in zip(enumerate(self.rewards), self.weights, strict=True)
        ]
        return [WeightedTerm("divergence", Divergence()), *rewards]

    def both(self, step: int = JOINT, **mix: Any) -> tuple[ObjectiveResult, ObjectiveResult]:
        """The objective at an update with rewards together, and one by one."""
        results = []
        for every in (MEASURE_EVERY, 1):
            self.decoder.forwards = self.decoder.backwards = 0
            made = {name: value() if callable(value) else value for name, value in mix.items()}
            results.append(evaluate_objective(self.terms(), sample_at(step), RewardMix(measure_every=every, **made)))
            results[-1].details["backwards"] = self.decoder.backwards  # type: ignore[index]
        return results[0], results[1]


def sample_at(step: int, rows: slice = slice(None)) -> Sample:
    random = torch.Generator().manual_seed(4)
    x0 = torch.randn(BATCH, 3, 4, 4, generator=random)[rows]
    return Sample(x0, Condition(tuple(f"{k}" for k in range(len(x0)))), x0, random, step)


def settled_scale(names: Sequence[str]) -> RewardScale:
    scale = RewardScale(pull=0.7)
    for k in range(MEASURED):
        scale.take({name: 0.5 + number + 0.01 * k for number, name in enumerate(names)}, 0.8, 1.5)
    return scale


def check_same(together: ObjectiveResult, separate: ObjectiveResult) -> None:
    """To 1e-6 of the gradient's largest entry, in float32; the same scores and numbers to the bit."""
    assert (together.grad - separate.grad).abs().max() < 1e-6 * separate.grad.abs().max()
    for name, result in separate.results.items():
        assert torch.equal(together.results[name].value, result.value)
    for side in ("rewards", "divergences"):
        torch.testing.assert_close(together.squares[side], separate.squares[side], rtol=1e-6, atol=0)
    shared = together.details.keys() & separate.details.keys() - {"backwards"}
    assert together.details.keys() == separate.details.keys()
    for name in shared:
        torch.testing.assert_close(
            torch.as_tensor(together.details[name]).double(), torch.as_tensor(separate.details[name]).double()
        )


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("weights", [[1.0, 0.3], [1.0, -2.0], [0.5, -1.0, 2.0, 0.0]])
def test_the_gradient_is_that_of_separate_passes(weights: list[float], batch: int) -> None:
    world = World(weights, batch)
    together, separate = world.both()
    check_same(together, separate)
    parts = 2 if batch else 1
    assert (together.details["backwards"], separate.details["backwards"]) == (parts, parts * len(weights))
    images = world.decoder(sample_at(0).x0)
    assert ((images == 0) | (images == 1)).float().mean() > 0.1, "the clamp has a say"
    assert list(together.norms) == ["divergence"] and not together.cosines
    assert len(separate.norms) == 1 + len(weights)


def test_a_sum_that_passed_the_clamp_at_once_would_differ() -> None:
    """Each reward meets the clamp by itself: what one may not push, another may."""
    world, sample = World([1.0, -2.0]), sample_at(JOINT)
    result = evaluate_objective(world.terms(), sample, RewardMix())
    x0 = sample.x0.clone().requires_grad_(True)
    images = world.decoder(x0)
    scores = sum(weight * reward(images, []).sum() for weight, reward in zip([1.0, -2.0], world.rewards, strict=True))
    (naive,) = torch.autograd.grad(scores, x0)
    own = result.grad - sample.x0.sin()
    assert (own + naive).abs().max() > 0.01 * own.abs().max()


@pytest.mark.parametrize("weights", [[1.0, 0.3], [1.0, -2.0, 0.5]])
def test_a_scale_that_is_settled_is_that_of_separate_passes(weights: list[float]) -> None:
    names = [f"reward/{k}" for k in range(len(weights))]
    together, separate = World(weights).both(scale=lambda: settled_scale(names))
    check_same(together, separate)
    assert together.details["backwards"] == 1 and f"scale/{names[0]}" in together.details
    # While anything is being measured each has a pass of its own.
    together, separate = World(weights).both(scale=lambda: RewardScale(pull=0.7))
    assert torch.equal(together.grad, separate.grad) and together.details["backwards"] == len(weights)


@pytest.mark.parametrize(
    "mix",
    [
        {"balance": "normalised"},
        {"balance": "pcgrad"},
        {"balance": "mgda"},
        {"clip": 0.1},
        {"floors": lambda: {"reward/0": Floor(100.0, 0.05)}},
    ],
)
def test_where_each_gradient_is_needed_each_has_its_pass(mix: dict[str, Any]) -> None:
    together, separate = World([1.0, 0.5]).both(**mix)
    assert torch.equal(together.grad, separate.grad) and together.details["backwards"] == 2


@pytest.mark.parametrize("step", [0, MEASURED - 1, 2 * MEASURE_EVERY])
def test_each_is_measured_in_the_first_updates_and_now_and_then(step: int) -> None:
    together, separate = World([1.0, 0.5]).both(step)
    assert torch.equal(together.grad, separate.grad)
    assert list(together.norms) == ["divergence", "reward/0", "reward/1"] and len(together.cosines) == 3


def test_black_boxes_stay_by_themselves_and_two_others_share() -> None:
    world = World([1.0, 0.5, -0.7], black=[1])
    together, separate = world.both()
    check_same(together, separate)
    assert (together.details["backwards"], separate.details["backwards"]) == (1, 2)
    together, _ = World([1.0, 0.5], black=[1]).both()
    assert together.results["reward/0"].grad.numel(), "one alone has nobody to share with"


def test_a_decoder_that_ends_otherwise_is_not_taken_to_be_linear() -> None:
    world = World([1.0, 0.5], decode=lambda decoder: lambda latents: decoder(latents) * 1.0)
    together, separate = world.both()
    assert torch.equal(together.grad, separate.grad) and together.details["backwards"] == 2


def test_parts_of_a_batch_are_the_whole() -> None:
    world = World([1.0, -0.5])
    mix, terms = RewardMix(), world.terms()
    whole = evaluate_objective(world.terms(), sample_at(JOINT), RewardMix())
    parts = [evaluate_objective(terms, sample_at(JOINT, rows), mix) for rows in (slice(0, 2), slice(2, BATCH))]
    torch.testing.assert_close(joined(parts).grad, whole.grad, rtol=1e-5, atol=1e-6)
    mix.commit()
    statistics = mix.statistics["reward/0"]
    assert statistics.updates == 1 and statistics.pulls == 0 and statistics.deviation > 0


def test_a_reward_that_breaks_among_others_is_named() -> None:
    world = World([1.0, 0.5])
    terms = world.terms()
    world.rewards[1].broken = True
    result = evaluate_objective(terms, sample_at(JOINT), RewardMix())
    assert not result.sound
    assert "the reward '1' returned a score that is not finite" in find_cause(terms, sample_at(JOINT), result.results)
    world.rewards[1].broken, world.rewards[1].differentiable = False, None
    with pytest.raises(RunError, match="'1' is not differentiable"):
        evaluate_objective(terms, sample_at(JOINT), RewardMix())


def test_a_run_stopped_among_joint_updates_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """And its metrics say which updates measured each reward."""
    settings = blue_settings(tmp_path, BLUE, steps=MEASURED + 5, sample_every=100, checkpoint_every=100, batch_size=2)
    run = runs_in(tmp_path, settings | {"rewards": {**settings["rewards"], "colourfulness": -0.5}})
    whole = run("whole")
    with pytest.raises(Interrupted):
        run("parts", listeners=(StopAt(MEASURED + 2, signal.SIGINT),))
    assert_same_bits(whole, run("parts", resume=True), MEASURED + 5)
    measured = [row["step"] for row in metrics(whole) if "grad_norm/reward/colourfulness" in row]
    assert measured == [*range(1, MEASURED + 1), 2 * MEASURE_EVERY + 1]
    assert all({"pull", "reward/colourfulness", "grad_norm/integral_kl"} <= row.keys() for row in metrics(whole))
