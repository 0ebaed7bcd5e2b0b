"""The engine: one backward equals the naive sum of losses, its numbers are right, and what is wrong is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.times import Draw, UniformTimes
from dipp_toolkit.errors import BadNumbers, RunError
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.engine import Engine, ObjectiveResult, evaluate_objective
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.network import closed_form_denoiser
from dipp_toolkit.verify.world import GaussianReference
from kept_gradients import keep_gradients

BATCH = 16
TRAINING_TIMES = torch.linspace(0, 1, 12, dtype=torch.float64)


class CurvedGenerator:
    """A small network that is not linear in anything."""

    latent_shape = (3, 1, 1)

    def __init__(self, last: nn.Module | None = None) -> None:
        torch.manual_seed(5)
        layers = [nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 3)]
        self.network = nn.Sequential(*layers, *([last] if last else [])).double()

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        return self.network(noise.flatten(1)).reshape(noise.shape)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        raise NotImplementedError


class CurvedReward:
    """A reward whose gradient depends on the image."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (images.flatten(1).sin() * torch.tensor([1.0, -2.0, 0.5])).sum(1)


@dataclass
class Remembering:
    """A `Sampling` that draws one time and noise for each sample, and keeps what it drew."""

    drawn: Draw | None = None

    def __call__(self, x0: Tensor, random: torch.Generator) -> Draw:
        t = TRAINING_TIMES[1:][torch.randint(len(TRAINING_TIMES) - 1, (len(x0),), generator=random)]
        self.drawn = Draw(t, torch.randn(x0.shape, generator=random, dtype=x0.dtype))
        return self.drawn


@dataclass
class Constant:
    """A term that always says the same."""

    value: Tensor
    grad: Tensor

    def __call__(self, sample: Sample) -> TermResult:
        return TermResult(self.value, self.grad)


def assistant_of(law: Gaussian, reference: GaussianReference, rate: float = 0.0) -> LearnedAssistant:
    """The real assistant, started at the closed-form score of `law`."""
    denoiser = closed_form_denoiser(law, law, reference.schedule, "epsilon", TRAINING_TIMES)
    return LearnedAssistant(denoiser, torch.optim.Adam(denoiser.network.parameters(), lr=max(rate, 1e-12)))


def make_engine(
    terms: list[WeightedTerm], generator: CurvedGenerator, assistant: LearnedAssistant, rate: float = 0.0
) -> Engine:
    optimizer = torch.optim.SGD(generator.network.parameters(), lr=rate)
    random = torch.Generator().manual_seed(11)
    return Engine(generator, optimizer, assistant, terms, random, max_grad_norm=float("inf"))


def sample_of(count: int = 4) -> Sample:
    x0 = torch.randn(count, 3, 1, 1)
    return Sample(x0, Condition(("",) * count), x0, torch.Generator(), step=7)


def test_one_backward_is_the_sum_of_losses() -> None:
    """Parameter gradients equal autograd of mean[ w (log p_t(x_t) - log q_t(x_t)) - 0.7 r(x_0) ] through everything."""
    reference, generator, sampling = make_reference(), CurvedGenerator(), Remembering()
    law = Gaussian(torch.tensor([0.2, -0.1, 0.4]).double(), torch.eye(3).double() * 0.5)
    assistant = assistant_of(law, reference)
    terms = [
        WeightedTerm("integral_kl", IntegralKL(reference, assistant, guidance=2.0, sampling=sampling), 1.5),
        WeightedTerm("reward/curved", RewardTerm("curved", CurvedReward(), reference.decode), 0.7),
    ]
    engine = make_engine(terms, generator, assistant)
    condition = reference.encode(["a Gaussian"] * BATCH)
    noise = make_engine(terms, generator, assistant).draw_noise(BATCH)  # the same seed, so the same first draw
    keep_gradients(engine)
    result = engine.update_generator(condition)
    found = [parameter.grad.clone() for parameter in generator.network.parameters()]

    assert sampling.drawn is not None
    alpha, sigma = reference.schedule.alpha(sampling.drawn.t), reference.schedule.sigma(sampling.drawn.t)
    x0 = generator.generate(noise, condition)
    x_t = alpha[:, None] * x0.flatten(1) + sigma[:, None] * sampling.drawn.noise.flatten(1)
    log_ratio = law.noised(alpha, sigma).log_prob(x_t) - reference.guided(2.0).noised(alpha, sigma).log_prob(x_t)
    scores = CurvedReward()(x0, condition.prompts)
    naive = torch.autograd.grad((1.5 * log_ratio - 0.7 * scores).mean(), list(generator.network.parameters()))
    for item, other in zip(found, naive, strict=True):
        torch.testing.assert_close(item, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.results["reward/curved"].value, scores.detach())


def test_norms_and_cosines_are_of_weighted_gradients() -> None:
    sample = sample_of(2)
    a = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).reshape(2, 3, 1, 1)
    b = torch.tensor([[1.0, 1.0, 0.0], [0.0, -5.0, 0.0]]).reshape(2, 3, 1, 1)
    terms = [WeightedTerm("a", Constant(torch.ones(2), a), 2.0), WeightedTerm("b", Constant(torch.zeros(2), b), 0.5)]
    result = evaluate_objective(terms, sample)
    torch.testing.assert_close(result.grad, 2 * a + 0.5 * b)
    assert result.norms["a"] == pytest.approx((4 * (9 + 4) / 6) ** 0.5)
    assert result.norms["b"] == pytest.approx((0.25 * (2 + 25) / 6) ** 0.5)
    assert result.cosines == {"a/b": pytest.approx((2**-0.5 - 1) / 2)}
    assert torch.equal(result.results["a"].value, torch.ones(2))


@pytest.mark.parametrize(
    ("value", "grad", "message"),
    [
        (torch.zeros(4), torch.zeros(4, 3), r"gradient of shape \(4, 3\); expected \(4,\) and \(4, 3, 1, 1\)"),
        (torch.zeros(1), torch.zeros(4, 3, 1, 1), r"value of shape \(1,\)"),
    ],
)
def test_what_a_term_returns_is_checked(value: Tensor, grad: Tensor, message: str) -> None:
    with pytest.raises(RunError, match=message):
        evaluate_objective([WeightedTerm("odd", UncheckedConstant(value, grad))], sample_of())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["value", "grad"])
def test_a_term_that_is_not_finite_is_named(bad: float, where: str) -> None:
    value, grad = torch.zeros(BATCH), torch.zeros(BATCH, 3, 1, 1, dtype=torch.float64)
    (value if where == "value" else grad)[0] = bad
    reference, generator = make_reference(), CurvedGenerator(nn.Identity())
    engine = make_engine(
        [WeightedTerm("odd", Constant(value, grad))], generator, assistant_of(reference.given, reference)
    )
    with pytest.raises(BadNumbers, match="gradient of the term 'odd' is not finite at step 7"):
        engine.update_generator(reference.encode(["a"] * BATCH), step=7)


class UncheckedConstant:
    """A term of somebody who checks no shapes."""

    def __init__(self, value: Tensor, grad: Tensor) -> None:
        self.result = unchecked_result(value, grad)

    def __call__(self, sample: Sample) -> TermResult:
        return self.result


def unchecked_result(value: Tensor, grad: Tensor) -> TermResult:
    """A result whose shapes nobody checked, as without the tests' import hook."""
    result = object.__new__(TermResult)
    for name, item in (("value", value), ("grad", grad), ("details", {})):
        object.__setattr__(result, name, item)
    return result


class Rooted(nn.Module):
    """Zero, with an infinite derivative: a generator whose backward overflows though its samples are finite."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0).sqrt()


def test_a_generator_gradient_that_is_not_finite_is_a_sentence_and_changes_nothing() -> None:
    reference, generator = make_reference(), CurvedGenerator(Rooted())
    assistant = assistant_of(reference.given, reference)
    grad = torch.ones(BATCH, 3, 1, 1, dtype=torch.float64)
    terms = [WeightedTerm("one", Constant(torch.zeros(BATCH), grad))]
    engine = make_engine(terms, generator, assistant, rate=0.1)
    before = [parameter.detach().clone() for parameter in generator.network.parameters()]
    with pytest.raises(RunError, match="generator's gradient is not finite at step 3"):
        engine.update_generator(reference.encode(["a"] * BATCH), step=3)
    assert all(torch.equal(*pair) for pair in zip(before, generator.network.parameters(), strict=True))


REWARDS: dict[str, tuple[Callable[[Tensor, Sequence[str]], Tensor], str]] = {
    "one-number": (lambda images, prompts: images.mean(), r"a tensor of shape \(\); expected one score for each image"),
    "detached": (lambda images, prompts: images.detach().flatten(1).sum(1), "is not differentiable"),
    "blind": (lambda images, prompts: torch.zeros(len(images), requires_grad=True), "does not depend on the images"),
}


class Unchecked:
    """Wraps a function as a reward without checking what it returns."""

    differentiable = True

    def __init__(self, function: Callable[[Tensor, Sequence[str]], Tensor]) -> None:
        self.function = function

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.function(images, prompts)


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_that_cannot_train_is_a_sentence(name: str) -> None:
    function, message = REWARDS[name]
    with pytest.raises(RunError, match=message):
        RewardTerm(name, Unchecked(function), make_reference().decode)(sample_of())


BAD: dict[str, tuple[Callable[[Tensor, Sequence[str]], Tensor], str]] = {
    "score": (lambda images, prompts: images.flatten(1).sum(1) / 0, "returned a score that is not finite for 4 of 4"),
    "gradient": (lambda images, prompts: (0 * images.flatten(1).sum(1)).sqrt(), "gradient of the reward 'gradient'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_reward_whose_numbers_are_bad_is_named(name: str) -> None:
    function, message = BAD[name]
    term, sample = RewardTerm(name, Unchecked(function), make_reference().decode), sample_of()
    assert message in term.explain(sample, term(sample))


def test_a_decoder_whose_pixels_are_bad_is_named() -> None:
    term = RewardTerm("curved", CurvedReward(), lambda latents: latents.log().log())
    sample = sample_of()
    assert "the decoder gave pixels that are not finite" in term.explain(sample, term(sample))


def trained(steps: int, seed: int) -> tuple[list[Tensor], list[ObjectiveResult], list[float]]:
    """A few steps with a learned assistant: parameters of both, results, assistant losses."""
    reference, generator = make_reference(), CurvedGenerator()
    assistant = assistant_of(reference.given, reference, rate=0.01)
    terms = [
        WeightedTerm("integral_kl", IntegralKL(reference, assistant, guidance=2.0)),
        WeightedTerm("reward/curved", RewardTerm("curved", CurvedReward(), reference.decode), 0.7),
    ]
    engine = make_engine(terms, generator, assistant, rate=0.01)
    engine.random.manual_seed(seed)
    engine.assistant_rounds = 2
    conditions = [reference.encode(["a Gaussian"] * BATCH)] * 3
    outcomes = [engine.step(conditions, step) for step in range(steps)]
    parameters = [*generator.network.parameters(), *assistant.denoiser.network.parameters()]
    return (
        [parameter.detach() for parameter in parameters],
        [result for result, _ in outcomes],
        [loss for _, loss in outcomes],
    )


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, results, losses = trained(5, seed=3)
    second, other_results, other_losses = trained(5, seed=3)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert losses == other_losses
    assert all(a.norms == b.norms and a.cosines == b.cosines for a, b in zip(results, other_results, strict=True))
    assert not torch.equal(first[0], trained(5, seed=4)[0][0])


def test_assistant_rounds_are_updates_of_the_assistant_alone() -> None:
    """K updates move the assistant K times and leave the generator where it is."""
    reference, generator = make_reference(), CurvedGenerator()
    assistant = assistant_of(reference.given, reference, rate=0.01)
    engine = make_engine([], generator, assistant, rate=0.1)
    before = [parameter.detach().clone() for parameter in generator.network.parameters()]
    for count in (1, 2):
        engine.update_assistant(reference.encode(["a"] * BATCH))
        steps = {int(state["step"]) for state in assistant.optimizer.state.values()}
        assert steps == {count}
    assert all(torch.equal(*pair) for pair in zip(before, generator.network.parameters(), strict=True))


class NarrowGenerator(CurvedGenerator):
    """A plugin's generator whose weights, and so whose samples, are bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.network = self.network.bfloat16()


@dataclass
class Looking:
    """A term that keeps the samples it was shown and the times that are drawn for them."""

    sampling: UniformTimes = field(default_factory=UniformTimes)
    seen: list[Sample] = field(default_factory=list)
    drawn: list[Draw] = field(default_factory=list)

    def __call__(self, sample: Sample) -> TermResult:
        self.seen.append(sample)
        self.drawn.append(self.sampling(sample.x0, sample.random))
        return TermResult(sample.x0.new_zeros(len(sample.x0)), torch.ones_like(sample.x0))


@pytest.mark.parametrize("recompute", [False, True])
def test_samples_and_times_are_float32_whatever_a_generator_returns(recompute: bool) -> None:
    """Of 960 bfloat16 times 472 are distinct; the gradient goes back to the generator in its own dtype."""
    reference, generator, look = make_reference(), NarrowGenerator(), Looking()
    law = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    engine = make_engine([WeightedTerm("look", look)], generator, assistant_of(law, reference), rate=1e-1)
    engine.recompute_generator = recompute
    before = [parameter.detach().clone() for parameter in generator.network.parameters()]
    engine.update_generator(Condition(("",) * 960))
    (sample,), (draw,) = look.seen, look.drawn
    assert sample.x0.dtype == sample.noise.dtype == draw.t.dtype == draw.noise.dtype == torch.float32
    assert len(draw.t.unique()) == 960
    after = list(generator.network.parameters())
    assert all(item.dtype == torch.bfloat16 for item in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_assistant_learns_from_float32_samples() -> None:
    seen: list[Tensor] = []

    class Keeping:
        def predict_x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return x_t

        def update(self, x0: Tensor, condition: Condition, random: torch.Generator) -> float:
            seen.append(x0)
            return 0.0

        def state_dict(self) -> dict[str, Tensor]:
            return {}

        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            """It has none."""

    reference, generator = make_reference(), NarrowGenerator()
    law = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    engine = make_engine([], generator, assistant_of(law, reference))
    engine.assistant = Keeping()
    engine.update_assistant(Condition(("",) * 4))
    assert [item.dtype for item in seen] == [torch.float32]


def test_double_precision_stays_double() -> None:
    reference, look = make_reference(), Looking()
    law = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    make_engine([WeightedTerm("look", look)], CurvedGenerator(), assistant_of(law, reference)).update_generator(
        Condition(("",) * 4)
    )
    assert look.seen[0].x0.dtype == look.drawn[0].t.dtype == torch.float64
