"""The terms of the few-step RL family: their fixed points, by the gradient there and by finite differences; advantages;
the surrogate of group preferences; steps that a term leaves out; and mistakes in any of them that the rows notice."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.objective.advantages import Advantages, membership, standardised_reward
from dipp_toolkit.objective.base import Sample, TermResult, side_of
from dipp_toolkit.objective.estimators.memory import KEYS, SCORES, Groups, Memory
from dipp_toolkit.objective.estimators.surrogate import FlatSurrogate, SurrogateNetwork, surrogate_network
from dipp_toolkit.objective.gaussians import Gaussian, QuadraticReward
from dipp_toolkit.objective.result import ObjectiveResult, averaged
from dipp_toolkit.objective.terms.advantage_weighted_kl import AdvantageWeightedKL
from dipp_toolkit.objective.terms.dynamic_kl import DynamicKL
from dipp_toolkit.objective.terms.group_preference import (
    GroupPreference,
    KnownAdvantage,
    PreferenceSurrogate,
    group_loss,
    hold,
)
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.objective.terms.last_step_reward import LastStepReward
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.planning.estimate import samples_of_prompts
from dipp_toolkit.training.setup.assembly import check_groups
from dipp_toolkit.verify.cases import CASES, gradient, make_generator, make_reference, map_gradient
from dipp_toolkit.verify.gradients import compare_gradients
from dipp_toolkit.verify.runner import probe
from dipp_toolkit.verify.world import ExactAssistant, GaussianReference
from dipp_toolkit.verify.world_terms import Subject

PROMPTS = ("fox", "cake", "fox", "fox", "cake", "owl")
CASE = CASES["linear"]


@cache
def world() -> GaussianReference:
    """The verification's reference, which takes a while to make."""
    return make_reference()


def slope() -> Tensor:
    """a of the linear case."""
    assert isinstance(CASE.reward, QuadraticReward)
    return CASE.reward.slope


def information(weighting: str = "uniform") -> tuple[Gaussian, Tensor]:
    """The reference's law and M, from the schedule's numbers and nothing of the terms."""
    reference = world()
    problem = replace(CASE, weighting=weighting).problem(reference, reference.given, reference.given)
    total = torch.zeros(3, 3, dtype=torch.float64)
    for alpha, sigma, weight in zip(problem.alpha, problem.sigma, problem.weights, strict=True):
        noised = alpha**2 * reference.given.covariance + sigma**2 * torch.eye(3, dtype=torch.float64)
        total += weight * alpha**2 * torch.linalg.inv(noised) / len(problem.alpha)
    return reference.given, total


def linear_rewards(scale: float = 1.0) -> RewardSum:
    """The linear case's reward, of latents that are images."""
    assert CASE.reward is not None
    term = RewardTerm("linear", CASE.reward, lambda latents: latents)
    return RewardSum({"linear": term}, {"linear": scale})


def sample_of(prompts: tuple[str, ...] = PROMPTS, seed: int = 1, **more: Any) -> Sample:
    reference, random = world(), torch.Generator().manual_seed(seed)
    noise = torch.randn(len(prompts), 3, 1, 1, generator=random, dtype=torch.float64)
    return Sample(0.7 * noise + 0.2, reference.encode(prompts), noise, random, **more)


# --- advantages -------------------------------------------------------------------------------------------------------


def test_advantages_are_within_a_prompt_and_without_units() -> None:
    totals = torch.tensor([3.0, 10.0, 5.0, 1.0, 12.0, 7.0], dtype=torch.float64)
    found = Advantages.among(totals, totals.abs(), PROMPTS)
    fox, cake = torch.tensor([3.0, 5.0, 1.0]).double(), torch.tensor([10.0, 12.0]).double()
    torch.testing.assert_close(found.values[[0, 2, 3]], (fox - 3) / fox.std(correction=0))
    torch.testing.assert_close(found.values[[1, 4]], torch.tensor([-1.0, 1.0]).double())
    torch.testing.assert_close(found.deviation[[1, 4]], cake.std(correction=0).expand(2))
    assert found.values[5] == found.deviation[5] == 0, "an only image stands nowhere"
    other = Advantages.among(1000 * totals - 40, (1000 * totals).abs(), PROMPTS)
    torch.testing.assert_close(other.values, found.values)


@pytest.mark.parametrize("apart", [0.0, 1e-6])
def test_scores_that_differ_by_their_rounding_say_nothing(apart: float) -> None:
    totals = torch.tensor([100.0, 100.0 + apart, 100.0])
    found = Advantages.among(totals, totals, ("fox",) * 3)
    assert not found.values.any() and not found.deviation.any()
    assert not found.over_deviation(torch.ones(3, 2, 2)).any()


def test_every_image_is_of_one_group() -> None:
    member = membership(PROMPTS)
    assert member.shape == (3, 6) and torch.equal(member.sum(0), torch.ones(6, dtype=torch.int64))


def test_the_deviation_of_a_quadratic_reward_is_that_of_its_samples() -> None:
    reference = world()
    reward = CASES["quadratic"].reward
    assert isinstance(reward, QuadraticReward)
    draws = torch.randn(200_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    law = reference.given
    x = law.mean + draws @ torch.linalg.cholesky(law.covariance).mT
    torch.testing.assert_close(
        reward(x.reshape(-1, 3, 1, 1), ["a"] * len(x)).var(), reward.variance(law), rtol=0.02, atol=0
    )


# --- the advantage-weighted integral KL -------------------------------------------------------------------------------


def weighted_kl(strength: float) -> AdvantageWeightedKL:
    reference = world()
    exact = ExactAssistant(make_generator(), reference.schedule)
    return AdvantageWeightedKL(reference, exact, strength=strength, rewards=linear_rewards())


def field_at(strength: float, matrix: Tensor, bias: Tensor) -> Tensor:
    """The mean field of the term's closed form, as one vector."""
    term, reference = weighted_kl(strength), world()
    by_bias, by_matrix = map_gradient(CASE.objective_of_map(term, reference), matrix, bias)
    return torch.cat([by_bias, by_matrix.flatten()])


def jacobian(strength: float) -> Tensor:
    """Central differences of that field in `(b, A)` at the reference's law, `(12, 12)`."""
    law = world().given
    start = torch.cat([law.mean, torch.linalg.cholesky(law.covariance).flatten()])
    columns = []
    for unit in 1e-5 * torch.eye(12, dtype=torch.float64):
        both = [field_at(strength, (start + way * unit)[3:].reshape(3, 3), (start + way * unit)[:3]) for way in (1, -1)]
        columns.append((both[0] - both[1]) / 2e-5)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9, 1.5])
def test_the_reference_is_stationary_whatever_the_advantages(strength: float) -> None:
    law = world().given
    assert field_at(strength, torch.linalg.cholesky(law.covariance), law.mean).abs().max() < 1e-12
    moved = field_at(strength, torch.linalg.cholesky(law.covariance), law.mean + 0.1)
    assert moved.abs().max() > 0.01


def test_below_a_strength_of_one_it_is_an_end_and_beyond_a_saddle() -> None:
    """Rotations of the noise leave the law as it is: three directions have no slope. All others go back to it, and from
    a strength of 1 on one does not."""

    def slopes(strength: float) -> Tensor:
        return torch.linalg.eigvals(jacobian(strength)).real.sort().values

    for strength in (0.0, 0.5, 0.9):
        found = slopes(strength)
        assert found.abs().sort().values[:3].max() < 1e-6
        assert (found > 1e-3).sum() == 9 and found.min() > -1e-6
    assert slopes(1.5).min() < -1e-2


def test_on_a_line_the_field_is_that_of_two_numbers() -> None:
    r"""Of one number the field is $(h b + \kappa m, m + \kappa h b)$: at $\kappa = 1$ both vanish along a curve."""
    one = torch.ones(1, dtype=torch.float64)
    target, reward = Gaussian(0 * one, one[None]), QuadraticReward(2 * one, 0 * one[None], 0 * one)
    base = CASE.problem(world(), target, target)
    problem = replace(base, target=target, reward=reward)
    for strength in (0.5, 1.0):
        term = replace(weighted_kl(0.5), strength=strength)
        by_bias, by_matrix = term.mean_field(problem, torch.tensor([[1.3]]).double(), torch.tensor([0.4]).double())
        alone, narrower = replace(term, strength=0.0).mean_field(
            problem, torch.tensor([[1.3]]).double(), torch.tensor([0.4]).double()
        )
        torch.testing.assert_close(by_bias, alone + strength * narrower[0])
        torch.testing.assert_close(by_matrix[0], narrower[0] + strength * alone)
        assert (by_bias == by_matrix[0]).all() == (strength == 1.0)


def test_a_sample_counts_as_its_advantage_says() -> None:
    term, sample = weighted_kl(0.5), sample_of()
    plain = IntegralKL(term.reference, term.assistant)(sample_of())
    result = term(sample)
    scores = linear_rewards().score(sample.x0, PROMPTS)[0]
    weight = 1 + 0.5 * Advantages.among(scores, scores.abs(), PROMPTS).values
    torch.testing.assert_close(result.grad, weight.reshape(-1, 1, 1, 1) * plain.grad)
    torch.testing.assert_close(result.value, weight * plain.value)
    torch.testing.assert_close(result.scores["linear"], scores)
    clipped = 1 + 0.5 * ((weight - 1) / 0.5).clamp(-0.1, 0.1)
    torch.testing.assert_close(replace(term, clip=0.1)(sample_of()).grad, clipped.reshape(-1, 1, 1, 1) * plain.grad)
    assert side_of(term) == "divergences"


# --- the reward of the last step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weighting"), [("linear", "uniform"), ("snr", "snr")])
@pytest.mark.parametrize("term", ["last_step_reward", "group_preference"])
def test_the_optimum_is_the_formula_and_stationary(term: str, name: str, weighting: str) -> None:
    case, reference = CASES[name], world()
    law, precision = information(weighting)
    size = (slope() @ law.covariance @ slope()).sqrt()
    wanted = law.mean + case.reward_scale / size * torch.linalg.solve(precision, slope())
    built = probe(Subject(term, {}), reference)
    found = case.optimum(built, reference)
    torch.testing.assert_close(found.mean, wanted)
    torch.testing.assert_close(found.covariance, law.covariance)
    objective = case.objective(built, reference)
    assert all(part.abs().max() < 1e-8 for part in gradient(objective, Gaussian(wanted, law.covariance)))
    # Finite differences in the mean; the deviation is of the law that the images are drawn from.
    drawn = Gaussian(wanted, law.covariance)
    for unit in 1e-4 * torch.eye(3, dtype=torch.float64):
        above, below, here = (
            objective(Gaussian(wanted + way * unit, law.covariance), drawn).item() for way in (1, -1, 0)
        )
        assert abs(above - below) < 1e-8 < 1e4 * (above + below - 2 * here)


def test_the_gradient_is_the_rewards_over_the_spread_of_its_prompt() -> None:
    sample = sample_of()
    result = LastStepReward(linear_rewards(), scale=0.3)(sample)
    scores = linear_rewards().score(sample.x0, PROMPTS)[0]
    spread = scores[[0, 2, 3]].std(correction=0)
    torch.testing.assert_close(result.grad[2].flatten(), -0.3 * slope() / spread)
    assert not result.grad[5].any(), "an only image says nothing of its prompt's spread"
    torch.testing.assert_close(result.value, -0.3 * scores)
    assert side_of(LastStepReward()) == "rewards"


def test_steps_before_the_last_ask_for_nothing() -> None:
    rewards = RewardSum({"linear": RewardTerm("linear", Unasked(), lambda latents: latents)}, {"linear": 1.0})
    first = LastStepReward(rewards, scale=0.3, steps=2)(sample_of(readout=0))
    assert not first.grad.any() and first.counted is not None and not first.counted.any()
    last = LastStepReward(linear_rewards(), scale=0.3, steps=2)(sample_of(readout=1))
    torch.testing.assert_close(last.grad, 2 * LastStepReward(linear_rewards(), scale=0.3)(sample_of()).grad)


class Unasked:
    """A reward that must not be asked."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        raise AssertionError("a step before the last was scored")


def test_the_mean_over_steps_counts_what_was_measured() -> None:
    """A term that looks at the last of two steps has that step's values and scores, and half of its gradient."""
    sample = sample_of()

    def result(own: TermResult) -> ObjectiveResult:
        return ObjectiveResult(own.grad, {"term": own}, {}, {})

    term = LastStepReward(linear_rewards(), scale=0.3, steps=2)
    first, last = term(replace(sample, readout=0)), term(replace(sample, readout=1))
    both = averaged([result(first), result(last)]).results["term"]
    torch.testing.assert_close(both.value, last.value)
    torch.testing.assert_close(both.scores["linear"], last.scores["linear"])
    torch.testing.assert_close(both.grad, last.grad / 2)
    torch.testing.assert_close(both.details["group_deviation"], last.details["group_deviation"])
    assert both.counted is not None and both.counted.all()


# --- the surrogate of group preferences -------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_the_surrogate_learns_the_advantage_itself(beta: float) -> None:
    """The loss as a function of the predictions: its gradient is 0 there, by autograd and by differences, and nowhere
    near it is less."""
    prompts = (*PROMPTS[:5], "cake")
    advantages = Advantages.among(torch.randn(6).double(), torch.ones(6).double(), prompts).values
    same = torch.tensor([[one == other for other in prompts] for one in prompts])
    offsets = torch.tensor([5.0, -2.0, 5.0, 5.0, -2.0, -2.0]).double()  # what a prompt's images share
    best = (advantages + offsets).requires_grad_(True)
    loss = group_loss(best, advantages, same, beta)
    assert torch.autograd.grad(loss, best)[0].abs().max() < 1e-12
    for unit in torch.randn(20, 6, dtype=torch.float64):
        apart = unit - (same.double() @ unit) / same.sum(1)
        nearby = [group_loss(best.detach() + way * 1e-3 * apart, advantages, same, beta).item() for way in (1, -1)]
        assert min(nearby) > loss.item() and abs(nearby[0] - nearby[1]) < 1e-6
    assert hold(beta) == pytest.approx(beta * torch.sigmoid(torch.tensor(-beta)).item())


def test_the_better_group_is_the_one_with_positive_advantages() -> None:
    """The likelihood of one group of four, written again: two images won and two lost."""
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    predicted = torch.tensor([0.3, -0.4, 0.2, 0.1]).double()
    margin = (0.3 + 0.2) / 4 - (-0.4 + 0.1) / 4
    spread = predicted.var(correction=0)
    wanted = -torch.sigmoid(torch.tensor(2 * margin).double()).log() + hold(2.0) / 2 * spread
    torch.testing.assert_close(group_loss(predicted, advantages, torch.ones(4, 4, dtype=torch.bool), 2.0), wanted)


def test_groups_are_drawn_whole_and_silent_ones_last() -> None:
    rows = {
        KEYS: torch.tensor([7, 7, 7, 3, 3, 9, 5, 5]),
        SCORES: torch.tensor([1.0, 2.0, 6.0, 4.0, 5.0, 8.0, 2.0, 2.0]),
    }
    groups = Groups.among(rows)
    torch.testing.assert_close(groups.advantages[:3], (torch.tensor([1.0, 2.0, 6.0]) - 3) / torch.tensor(14 / 3).sqrt())
    assert groups.heard.tolist() == [True] * 5 + [False] * 3
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        chosen = rows[KEYS][groups.draw(5, random)].tolist()
        assert sorted(chosen) == [3, 3, 7, 7, 7] and chosen in ([*sorted(chosen)], [*sorted(chosen)[::-1]])
    assert len(groups.draw(100, random)) == 8


def test_a_surrogate_of_preferences_finds_the_slope_of_the_advantage() -> None:
    """On samples of 16 prompts whose scores have other offsets and one slope: that slope over its deviation."""
    surrogate = PreferenceSurrogate(rounds=80, trust=-1.0, images=128, memory=Memory(256))
    random = torch.Generator().manual_seed(0)
    prompts = tuple(f"prompt {number // 16}" for number in range(256))
    offsets = torch.tensor([10.0 * float(prompt.split()[1]) for prompt in prompts])
    for _ in range(10):
        x0 = torch.randn(256, 3, 1, 1, generator=random)
        scores = 5 * x0.flatten(1) @ slope().float() + offsets
        surrogate.estimate(Sample(x0, world().encode(prompts), x0, random), lambda _, prompts, own=scores: own)
        surrogate.commit()
    still = torch.zeros(1, 3, 1, 1)
    lent = surrogate.lend(Sample(still, world().encode(["a"]), still, random)).flatten()
    wanted = (slope() / slope().norm()).float()
    assert torch.nn.functional.cosine_similarity(lent, wanted, dim=0) > 0.99
    assert lent.norm() == pytest.approx(1, abs=0.1)
    assert surrogate.correlation > 0.95


def test_the_known_advantage_is_what_last_step_reward_follows() -> None:
    sample = sample_of()
    known = GroupPreference(linear_rewards(), scale=0.3, surrogate=KnownAdvantage())(sample)
    torch.testing.assert_close(known.grad, LastStepReward(linear_rewards(), scale=0.3)(sample).grad)
    torch.testing.assert_close(known.scores["linear"], linear_rewards().score(sample.x0, PROMPTS)[1]["linear"])


@pytest.mark.parametrize(
    ("shape", "kind"), [((4, 8, 8), SurrogateNetwork), ((3, 1, 1), FlatSurrogate), ((6, 5), FlatSurrogate)]
)
def test_latents_of_any_shape_have_a_surrogate(shape: tuple[int, ...], kind: type) -> None:
    network = surrogate_network(shape, 0)
    assert isinstance(network, kind)
    assert network(torch.randn(2, *shape), None).shape == (2,)


def test_what_it_has_learned_is_kept() -> None:
    whole = PreferenceSurrogate(rounds=2, trust=-1.0)
    parts = PreferenceSurrogate(rounds=2, trust=-1.0)
    for update in range(4):
        if update == 2:
            parts, state = PreferenceSurrogate(rounds=2, trust=-1.0), parts.state_dict()
            parts.load_state_dict(state)
        for surrogate in (whole, parts):
            sample = sample_of(("a", "a", "b", "b"), update)
            surrogate.estimate(sample, lambda x0, prompts: linear_rewards().score(x0, prompts)[0])
            surrogate.commit()
    torch.testing.assert_close(whole.state_dict(), parts.state_dict(), rtol=0, atol=0)


# --- the dynamic integral KL ------------------------------------------------------------------------------------------


def dynamic(**options: Any) -> DynamicKL:
    reference = world()
    return DynamicKL(reference, ExactAssistant(make_generator(), reference.schedule), **options)


def test_it_begins_at_noisy_times_and_ends_as_the_integral_kl() -> None:
    term = dynamic(updates=10)
    places = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for step, mean in ((0, 4 / 5.5), (5, 2.5 / 3.75), (10, 0.5), (99, 0.5)):
        density = term.density(places, step)
        assert density.mean() == pytest.approx(1, abs=1e-3)
        assert (places * density).mean() == pytest.approx(mean, abs=1e-3)
    beta = torch.distributions.Beta(torch.tensor(4.0).double(), torch.tensor(1.5).double())
    torch.testing.assert_close(term.density(places, 0), beta.log_prob(places).exp())
    plain = IntegralKL(term.reference, term.assistant)
    torch.testing.assert_close(term(sample_of(step=10)).grad, plain(sample_of(step=10)).grad)
    assert (term(sample_of(step=0)).grad - plain(sample_of(step=0)).grad).abs().max() > 0.01


def test_guidance_towards_the_generator_is_a_factor() -> None:
    alone, guided = dynamic(updates=10, share=0.0), dynamic(updates=10, share=0.25)
    for step, factor in ((0, 0.75), (5, 0.875), (10, 1.0)):
        torch.testing.assert_close(guided(sample_of(step=step)).grad, factor * alone(sample_of(step=step)).grad)


def test_without_a_reward_the_reference_is_the_optimum_at_every_update() -> None:
    reference = world()
    term = probe(Subject("dynamic_kl", {"updates": 100}), reference)
    optima = {step: CASE.optimum(term, reference, step) for step in (0, 50, 299)}
    for step in optima:
        still = CASES["distillation"].optimum(term, reference, step)
        torch.testing.assert_close(still.mean, reference.given.mean)
    law, precision = information()
    wanted = law.mean + CASE.reward_scale * torch.linalg.solve(precision, slope())
    torch.testing.assert_close(optima[299].mean, wanted)
    assert (optima[0].mean - law.mean).norm() > 1.3 * (wanted - law.mean).norm(), "a reward weighs more at first"


# --- rows that can fail -----------------------------------------------------------------------------------------------


SUBJECTS: dict[str, tuple[type, dict[str, Any]]] = {
    "advantage_weighted_kl": (AdvantageWeightedKL, {}),
    "dynamic_kl": (DynamicKL, {"updates": 100}),
    "last_step_reward": (LastStepReward, {}),
    "group_preference": (GroupPreference, {}),
}


def gradient_error(name: str, step: int = 0) -> float:
    expected, found = compare_gradients(CASE, Subject(name, SUBJECTS[name][1]), world(), step)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("step", [0, 50])
@pytest.mark.parametrize("name", SUBJECTS)
def test_gradients_are_those_of_the_closed_forms(name: str, step: int) -> None:
    assert gradient_error(name, step) < 1e-8


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_gradient_of_another_size_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    term = SUBJECTS[name][0]
    original = term.__call__

    def larger(self: object, sample: Sample) -> TermResult:
        result = original(self, sample)
        return replace(result, grad=1.01 * result.grad)

    monkeypatch.setattr(term, "__call__", larger)
    assert gradient_error(name) > 1e-3


@pytest.mark.parametrize("name", ["advantage_weighted_kl", "last_step_reward", "group_preference"])
def test_advantages_that_are_not_divided_are_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    among = Advantages.among.__func__  # type: ignore[attr-defined]

    def undivided(cls: type, *arguments: Any) -> Advantages:
        found = among(cls, *arguments)
        return Advantages(found.values * found.deviation, torch.ones_like(found.deviation))

    monkeypatch.setattr(Advantages, "among", classmethod(undivided))
    assert gradient_error(name) > 1e-2


def test_an_advantage_with_the_wrong_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RewardSum.advantages

    def flipped(self: RewardSum, *arguments: Any) -> Advantages:
        found = original(self, *arguments)
        return replace(found, values=-found.values)

    monkeypatch.setattr(RewardSum, "advantages", flipped)
    assert gradient_error("advantage_weighted_kl") > 1e-2


def test_times_that_are_weighed_backwards_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = DynamicKL.factor

    def backwards(self: DynamicKL, noisy: Any, *both: Tensor) -> Tensor:
        return original(self, replace(noisy, t=1 - noisy.t), *both)

    monkeypatch.setattr(DynamicKL, "factor", backwards)
    assert gradient_error("dynamic_kl") > 1e-2


# --- what settings may say --------------------------------------------------------------------------------------------


def test_groups_that_a_batch_would_cut_are_refused() -> None:
    with pytest.raises(RequestError, match=r"term 'group_preference' compares\. Set batch_size to a multiple of 4"):
        check_groups(make_config({"term": "integral_kl,group_preference", "batch_size": 6}), {})
    with pytest.raises(RequestError, match="the term 'last_step_reward' has no images of one prompt to compare"):
        check_groups(make_config({"term": "last_step_reward", "noises_per_prompt": 1}), {})
    check_groups(make_config({"term": "advantage_weighted_kl", "batch_size": 6, "noises_per_prompt": 3}), {})


@pytest.mark.parametrize(("term", "each"), [("integral_kl", None), ("integral_kl,group_preference", 4)])
def test_a_plan_knows_how_many_images_of_a_prompt_a_term_compares(term: str, each: int | None) -> None:
    assert samples_of_prompts(make_config({"term": term})).get("noises_per_prompt") == each


def test_standardised_rewards_of_no_reward_are_nothing() -> None:
    reference = world()
    problem = CASES["distillation"].problem(reference, reference.given, reference.given)
    assert standardised_reward(problem).item() == 0
