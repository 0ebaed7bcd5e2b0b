"""A pull in place of a scale: what the rewards contribute beside the divergence, whatever their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from dipp_toolkit.objective.base import TermResult
from dipp_toolkit.objective.mixing.balance import Balance
from dipp_toolkit.objective.mixing.floors import Floor
from dipp_toolkit.objective.mixing.mix import Mixed, RewardMix
from dipp_toolkit.objective.mixing.scale import MEASURED, FirstSizes, RewardScale
from dipp_toolkit.utils.piecewise_linear import PiecewiseLinear

SHAPE = (8, 3, 2)


def size(gradient: Tensor) -> float:
    return gradient.double().square().mean().sqrt().item()


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@dataclass
class World:
    """Rewards with fixed gradients beside a divergence with one, all somewhat different at each update."""

    mix: RewardMix
    weights: Mapping[str, float]
    gradients: Mapping[str, Tensor]
    divergence: Tensor = field(default_factory=lambda: 0.3 * draw(99))
    updates: int = 0

    def update(self, passes: int = 1, commit: bool = True) -> tuple[Mixed, float]:
        """The last pass of an update, and the pull of the whole of it."""
        random = torch.Generator().manual_seed(self.updates)
        swing = 1 + 0.3 * torch.rand(1, generator=random).item()
        squares = torch.zeros(2)
        for part in range(passes):
            rows = slice(part * len(self.divergence) // passes, (part + 1) * len(self.divergence) // passes)
            rest = self.divergence[rows]
            results = {
                name: TermResult(torch.arange(len(rest)).float(), swing * gradient[rows])
                for name, gradient in self.gradients.items()
            }
            found = self.mix(results, self.weights, rest, random, rest)
            joint = torch.stack(list(found.added.values())).sum(0)
            squares += torch.tensor([joint.square().mean(), rest.square().mean()])
        self.updates += 1
        (self.mix.commit if commit else self.mix.discard)()
        return found, (squares[0] / squares[1]).sqrt().item()


def world(balance: Balance = "sum", pull: float = 0.5, units: float = 1.0, **changes: Tensor) -> World:
    gradients = {"a": draw(1), "b": 50 * draw(2)} | changes
    mix = RewardMix(balance, scale=RewardScale(pull))
    return World(mix, dict.fromkeys(gradients, 1.0), {name: units * gradient for name, gradient in gradients.items()})


@pytest.mark.parametrize("balance", ["sum", "normalised", "pcgrad", "mgda"])
@pytest.mark.parametrize("other", ["orthogonal", "opposing"])
def test_the_joint_gradient_has_the_pull_from_the_first_update_on(balance: Balance, other: str) -> None:
    a = draw(1)
    b = draw(2) if other == "orthogonal" else -0.5 * a + 0.4 * draw(2)
    here = world(balance, b=b)
    assert here.update()[1] == pytest.approx(0.5, rel=1e-5)
    pulls = torch.tensor([here.update()[1] for _ in range(MEASURED)])
    assert pulls[-5:].median() == pytest.approx(0.5, rel=0.15)


def test_shares_are_of_the_weights_and_not_of_the_units() -> None:
    here = world()
    here.weights = {"a": 3.0, "b": -1.0}
    found, pull = here.update()
    assert size(found.contributions["a"]) == pytest.approx(3 * size(found.contributions["b"]), rel=1e-5)
    assert (found.contributions["b"] * here.gradients["b"]).sum() < 0, "a negative weight works against its reward"
    assert pull == pytest.approx(0.5, rel=1e-5)


def test_the_scale_is_held_after_its_measurement() -> None:
    here = world()
    for _ in range(MEASURED):
        here.update()
    before = here.mix.scale.state_dict()
    here.gradients = {name: 10 * gradient for name, gradient in here.gradients.items()}
    pull = here.update()[1]
    assert 3 < pull < 7 and here.mix.scale.state_dict() == before


@pytest.mark.parametrize("balance", ["sum", "normalised", "pcgrad", "mgda"])
@pytest.mark.parametrize("units", [1e-4, 1e4, 1e-25])
def test_units_do_not_matter(balance: Balance, units: float) -> None:
    plain, other = world(balance), world(balance, units=units)
    for _ in range(MEASURED + 3):
        (one, pull), (two, other_pull) = plain.update(), other.update()
        assert other_pull == pytest.approx(pull, rel=1e-6)
        for name, gradient in one.added.items():
            torch.testing.assert_close(two.added[name], gradient, rtol=1e-5, atol=1e-6)


def test_several_passes_measure_the_whole_batch() -> None:
    whole, parts = world(), world()
    for _ in range(MEASURED):
        whole.update()
        parts.update(passes=4)
    assert parts.mix.scale.held() == pytest.approx(whole.mix.scale.held(), rel=0.05)
    assert parts.mix.scale.sizes["b"].values == pytest.approx(whole.mix.scale.sizes["b"].values, rel=1e-6)
    assert parts.mix.scale.divergence.values == pytest.approx(whole.mix.scale.divergence.values, rel=1e-6)


def test_a_resumed_measurement_goes_on_to_the_bit() -> None:
    whole, first = world("pcgrad"), world("pcgrad")
    for _ in range(5):
        whole.update()
        first.update()
    second = world("pcgrad")
    second.mix.load_state_dict(first.mix.state_dict())
    second.updates = 5
    for _ in range(MEASURED):
        a, b = whole.update()[0].added, second.update()[0].added
        assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_a_discarded_update_is_not_measured() -> None:
    here = world()
    here.update(commit=False)
    assert here.mix.scale.state_dict() == {"sizes": {}, "joint": [], "divergence": []}
    assert here.update()[1] == pytest.approx(0.5, rel=1e-5)


def test_a_reward_begins_to_count_when_it_has_a_gradient() -> None:
    """As a surrogate's has once it is trusted."""
    here = world()
    late, here.gradients = here.gradients["b"], {**here.gradients, "b": torch.zeros(SHAPE)}
    for _ in range(MEASURED + 2):
        pull = here.update()[1]
    alone = here.mix.scale.divergence.values
    assert pull == pytest.approx(0.5, rel=0.15) and not here.mix.scale.sizes["b"].values
    here.gradients = {**here.gradients, "b": late}
    found, pull = here.update()
    assert pull == pytest.approx(0.5, rel=0.15)
    assert size(found.contributions["a"]) == pytest.approx(size(found.contributions["b"]), rel=0.15)
    for _ in range(MEASURED):
        here.update()
    assert len(here.mix.scale.sizes["b"].values) == len(here.mix.scale.joint.values) == MEASURED
    assert here.mix.scale.divergence.values == alone, "the divergence's size stays what it was"


def test_rewards_wait_while_the_divergence_has_no_gradient() -> None:
    here = world()
    divergence, here.divergence = here.divergence, torch.zeros(SHAPE)
    for _ in range(3):
        found = here.update()[0]
        assert not any(item.any() for item in found.added.values())
    here.divergence = divergence
    assert here.update()[1] == pytest.approx(0.5, rel=0.3)
    assert len(here.mix.scale.divergence.values) == 1


def test_rewards_that_cancel_are_not_blown_up() -> None:
    found = world(b=-draw(1)).update()[0]
    assert not any(item.any() for item in found.added.values())


def test_floors_push_on_top_and_clips_are_in_usual_gradients() -> None:
    here = world()
    here.mix.floors, here.mix.clip = {"b": Floor(100.0)}, 1.2
    here.weights = {"a": 1.0, "b": 0.0}
    found, pull = here.update()
    assert pull == pytest.approx(0.5, rel=1e-5), "no floor pushes in the first update"
    assert 0 < found.details["clipped/a"] < 1
    found, pull = here.update()
    assert pull > 1 and found.details["multiplier/b"] > 1
    assert here.mix.scale.joint.values[1] == pytest.approx(here.mix.scale.joint.values[0], rel=0.1)


def test_a_schedule_multiplies_what_is_measured_and_is_not_part_of_it() -> None:
    plain, warmed = world(), world()
    warmed.mix.scale.schedule = PiecewiseLinear(((0, 0.25),))
    assert warmed.update()[1] == pytest.approx(0.25 * plain.update()[1], rel=1e-5)
    assert warmed.mix.scale.state_dict() == plain.mix.scale.state_dict()
    by_hand = RewardMix(scale=RewardScale(schedule=PiecewiseLinear(((0, 0.25),))))
    grad = draw(1)
    found = by_hand({"a": TermResult(torch.zeros(8), grad)}, {"a": 8.0}, grad, torch.Generator())
    torch.testing.assert_close(found.added["a"], 2 * grad)


def test_the_usual_size_is_a_median() -> None:
    first = FirstSizes()
    for value in (0.0, 3.0, float("inf"), 1.0, 1e9):
        first.add(value)
    assert first.usual == 3.0 and len(first.values) == 3
