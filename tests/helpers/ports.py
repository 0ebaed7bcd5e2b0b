"""What every port of a published reward is held against: the original's golden numbers, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dipp_toolkit.rewards.model_reward import ModelReward
from golden.make import formula_images

GOLDEN = Path(__file__).parents[1] / "plugins" / "golden"


def golden_of(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def check_golden(golden: dict[str, Any], scores: Tensor, images: Tensor) -> None:
    """Scores to 1e-5, and the gradient's direction, from the parts of it that were kept, to 1e-6."""
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    torch.testing.assert_close(scores.detach(), torch.tensor(golden["scores"]), rtol=0, atol=1e-5)
    expected = torch.tensor(golden["gradient"])
    assert F.cosine_similarity(gradient[:, :, ::17, ::13].flatten(), expected, dim=0) > 1 - 1e-6
    torch.testing.assert_close(
        gradient.flatten(1).norm(dim=1), torch.tensor(golden["gradient_norm"]), rtol=1e-4, atol=0
    )


def check_promises(reward: ModelReward) -> None:
    """One float32 score for each pair, whatever stands beside it, whatever autocast is around it."""
    images = F.interpolate(formula_images(64), size=(70, 51))
    prompts = ["a red cat", "😀 " * 3000]
    scores = reward(images, prompts)
    assert scores.shape == (2,) and scores.dtype == torch.float32
    assert reward.differentiable and reward.licence and "arXiv" in reward.source and reward.range
    alone = torch.cat([reward(images[k : k + 1], prompts[k : k + 1]) for k in range(2)])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reward(images, prompts), scores)
    reward.batch = 1
    torch.testing.assert_close(reward(images, prompts), scores, rtol=0, atol=1e-6)
    reward.batch = 0
    assert not any(parameter.requires_grad for parameter in reward.network.parameters())


def check_central_differences(reward: ModelReward, step: float = 0.003) -> None:
    """The image's gradient along directions of its own and at random, on pictures that must be resized and cropped."""
    reward.way = "tensor"
    images, prompts = 0.2 + 0.6 * F.interpolate(formula_images(64), size=(70, 91)), ["a red cat", "the sea"]
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reward(leaf, prompts).sum(), leaf)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *images.shape, generator=random) + gradient.sign()
    for direction in (gradient / gradient.abs().max(), *noise / noise.abs().max()):
        with torch.no_grad():
            above, below = (reward(images + sign * step * direction, prompts).double().sum() for sign in (1, -1))
        expected = (gradient * direction).double().sum()
        assert expected > 0
        torch.testing.assert_close((above - below) / (2 * step), expected, rtol=0.01, atol=0)
    reward.way = "auto"
