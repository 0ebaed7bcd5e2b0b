"""The decoder's clamp: saturated pixels are let back in and pushed out by a margin only, whoever raises what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.decoding import OVERSHOOT, LatentDecoder, RisingClamp
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.build import build_terms
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.shared_decode import SharedDecode
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.network import closed_form_denoiser


class Pixels(nn.Module):
    """An autoencoder whose pixels are its latents: in [0, 1] where they are in [-1, 1]."""

    config: ClassVar[dict[str, Any]] = {"block_out_channels": (1,), "latent_channels": 3}

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (latents * self.scale,)


class Mean:
    """The mean pixel, or its negative."""

    differentiable = True

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.sign * images.mean((1, 2, 3))


def moved(term: RewardTerm, start: Tensor, steps: int = 50, rate: float = 0.1, weight: float = 1.0) -> Tensor:
    """Latents after some steps along the signs of a weighted reward's gradient, as Adam makes them."""
    latents = start.clone()
    for _ in range(steps):
        sample = Sample(latents, Condition(("",) * len(latents)), latents, torch.Generator())
        latents = latents - rate * (weight * term(sample).grad).sign()
    return latents


@pytest.mark.parametrize(("sign", "weight"), [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
def test_a_saturated_pixels_latent_stops_moving_and_one_outside_comes_back(sign: float, weight: float) -> None:
    """Straight through, the latents would be at 6 after 50 steps; by the clamp's own gradient, still outside."""
    term = RewardTerm("mean", Mean(sign), LatentDecoder(Pixels()), ascended=weight > 0)
    upwards = sign * weight
    start = upwards * torch.tensor([1.35, 0.0, -3.0]).view(1, 3, 1, 1).repeat(2, 1, 2, 2)
    ends = upwards * moved(term, start, weight=weight)
    assert torch.equal(ends[:, 0], upwards * start[:, 0]), "already outside, and pushed no further"
    margin = 1 + 2 * OVERSHOOT  # of latents that are twice the pixels
    assert ((ends[:, 1] > margin - 0.01) & (ends[:, 1] < margin + 0.11)).all(), "a step beyond the margin, and no more"
    assert ((ends[:, 2] > margin - 0.01) & (ends[:, 2] < margin + 0.11)).all(), "back from the other side, and through"


def test_noise_alone_does_not_lead_a_saturated_pixel_inwards() -> None:
    """Held back from the edge on, gradients without a direction would have a mean of -0.4."""
    pixels = torch.full((100_000,), 1.05, requires_grad=True)
    noise = torch.randn(len(pixels), generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(RisingClamp.apply(pixels), pixels, noise)
    assert torch.equal(gradient, noise)


def test_the_runs_weights_say_what_rises() -> None:
    reference = make_reference()
    config = TrainConfig(rewards={"up": 1.0, "down": -2.0}, floors={"floor": 0.5})
    rewards = {name: Mean() for name in ("up", "down", "floor")}
    law = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    denoiser = closed_form_denoiser(law, law, reference.schedule, "epsilon", torch.linspace(0, 1, 12).double())
    assistant = LearnedAssistant(denoiser, torch.optim.SGD(denoiser.network.parameters(), 0.1))
    terms = build_terms(config, reference, assistant, rewards, torch.device("cpu"))
    found = {term.name: term.term.ascended for term in terms if isinstance(term.term, RewardTerm)}
    assert found == {"reward/up": True, "reward/down": False, "reward/floor": True}


def test_the_clamp_passes_what_points_inwards_and_near_the_range_all() -> None:
    pixels = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5, 0.0, 1.0, -0.05, 1.05], requires_grad=True)
    slope = torch.tensor([-1.0, 2.0, -3.0, 4.0, -5.0, 6.0, -7.0, 8.0, -9.0, 10.0])
    (gradient,) = torch.autograd.grad(RisingClamp.apply(pixels), pixels, slope)
    assert gradient.tolist() == [0, 2, -3, 4, -5, 0, -7, 8, -9, 10]
    assert torch.equal(RisingClamp.apply(pixels.detach()), pixels.detach().clamp(0, 1))


def test_bad_pixels_are_not_clamped_away() -> None:
    images = RisingClamp.apply(torch.tensor([float("inf"), -float("inf"), float("nan"), 2.0]))
    assert images.isnan().tolist() == [True, True, True, False]


def test_rewards_that_share_a_decode_are_held_back_each_by_itself() -> None:
    """One wants the white pixel whiter, the other darker: only the second is heard."""
    latents = torch.full((1, 3, 2, 2), 2.0)
    shared = SharedDecode(LatentDecoder(Pixels()), 2)
    sample = Sample(latents, Condition(("",)), latents, torch.Generator())
    up, down = (RewardTerm("mean", Mean(sign), shared)(sample) for sign in (1.0, -1.0))
    assert not up.grad.any()
    assert (down.grad > 0).all(), "the loss falls as the pixel darkens"
