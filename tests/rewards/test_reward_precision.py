"""A run's narrow passes end where a reward begins: float32 images, no autocast, the same bits as without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.evaluation.comparison import score
from dipp_toolkit.evaluation.scoring import PromptedFile, score_batch
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.estimators.smoothing import Smoothing
from dipp_toolkit.objective.estimators.surrogate import Surrogate
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.terms.policy_gradient import PolicyGradient
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.rewards.loading import FunctionReward
from dipp_toolkit.rewards.remote.answering import score as answered
from dipp_toolkit.rewards.remote.wire import Request
from dipp_toolkit.training.engine import evaluate_objective
from dipp_toolkit.utils.precision import at_least_float32, pass_autocast

PROMPTS = ("a", "b", "c", "d")
Asked = Callable[["Products"], list[Tensor]]


class Products:
    """Somebody's reward: products of float32 matrices, which autocast would make bfloat16, and so their gradients."""

    def __init__(self, differentiable: bool | None = True) -> None:
        self.differentiable = differentiable
        self.weights = torch.randn(3 * 64, 32, generator=torch.Generator().manual_seed(3))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert images.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        found = (images.flatten(1) @ self.weights).tanh().mean(1)
        return found.detach() if self.differentiable is False else found


def decode(latents: Tensor) -> Tensor:
    """Images of latents by operations that autocast leaves alone."""
    return latents[:, :3].sigmoid()


def sample_of() -> Sample:
    x0 = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return Sample(x0, Condition(PROMPTS), x0, torch.Generator().manual_seed(2))


def of_term(term: RewardTerm | PolicyGradient) -> list[Tensor]:
    result = term(sample_of())
    return [result.value, result.grad, *result.scores.values()]


def unknown(reward: Products) -> list[Tensor]:
    """A reward that does not say whether it has a gradient is tried first."""
    reward.differentiable = None
    return of_term(RewardTerm("products", reward, decode, estimator=Smoothing(pairs=2)))


def black_box(estimator: type[Smoothing | Surrogate]) -> Asked:
    return lambda reward: of_term(RewardTerm("products", FunctionReward("x", reward), decode, estimator=estimator()))


def explored(reward: Products) -> list[Tensor]:
    term = RewardTerm("products", reward, decode)
    return of_term(PolicyGradient(RewardSum({"products": term}, {"products": 1.0}), group=3))


def far_away(reward: Products) -> list[Tensor]:
    found = answered("products", reward, Request(decode(sample_of().x0), list(PROMPTS), True))
    return [item for item in found if item is not None]


def of_files(reward: Products) -> list[Tensor]:
    files = [PromptedFile(Path("x.png"), prompt) for prompt in PROMPTS]
    return [score_batch(reward, "products", decode(sample_of().x0), files)]


WAYS: dict[str, Asked] = {
    "gradient": lambda reward: of_term(RewardTerm("products", reward, decode)),
    "in parts": lambda reward: of_term(RewardTerm("products", reward, decode, batch=3)),
    "a trial first": unknown,
    "lowered": lambda reward: of_term(RewardTerm("products", reward, decode, ascended=False)),
    "smoothing": black_box(Smoothing),
    "surrogate": black_box(Surrogate),
    "policy gradient": explored,
    "elsewhere": far_away,
    "evaluation, judge and monitors": lambda reward: [score(reward, decode(sample_of().x0), PROMPTS)],
    "files": of_files,
}


@pytest.mark.parametrize("way", WAYS)
def test_scores_and_gradients_of_a_bf16_run_have_the_bits_of_a_float32_one(way: str) -> None:
    differentiable = way not in ("smoothing", "surrogate")
    expected = WAYS[way](Products(differentiable))
    with pass_autocast("cpu", torch.bfloat16):
        found = WAYS[way](Products(differentiable))
    assert found and all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_half_precision_images_reach_a_reward_as_float32_and_the_decoder_gets_its_own_dtype_back() -> None:
    narrow = RewardTerm("products", Products(), lambda latents: decode(latents.bfloat16()))
    result = narrow(sample_of())
    assert result.value.dtype == result.grad.dtype == torch.float32 and result.grad.any()
    assert score(Products(), decode(sample_of().x0).bfloat16(), PROMPTS).dtype == torch.float64


def test_wider_numbers_stay_wide() -> None:
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    assert at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32


def test_gradients_are_balanced_in_float32() -> None:
    """A Gram matrix is no pass of a network."""
    random = torch.Generator().manual_seed(5)
    answers = {name: TermResult(torch.zeros(4), torch.randn(4, 4, 8, 8, generator=random)) for name in ("a", "b")}

    def balanced() -> Tensor:
        terms = [WeightedTerm(name, lambda _, grad=answer: grad, 1.0, mixed=True) for name, answer in answers.items()]
        return evaluate_objective(terms, sample_of(), RewardMix("mgda")).grad

    expected = balanced()
    with pass_autocast("cpu", torch.bfloat16):
        assert torch.equal(balanced(), expected)
