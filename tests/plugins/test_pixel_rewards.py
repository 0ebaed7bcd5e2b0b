"""Pixel rewards against the formulas in numpy, and their gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dipp_pixels.rewards import Colourfulness, Sharpness, colourfulness, sharpness, split_channels
from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import Reward


def random_images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def numpy_colourfulness(image: np.ndarray) -> float:
    red, green, blue = image
    rg, yb = red - green, 0.5 * (red + green) - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def numpy_sharpness(image: np.ndarray) -> float:
    luma = np.tensordot([0.299, 0.587, 0.114], image, axes=1)
    height, width = luma.shape
    laplacian = np.zeros_like(luma)
    for y in range(height):
        for x in range(width):
            around = [
                luma[max(y - 1, 0), x],
                luma[min(y + 1, height - 1), x],
                luma[y, max(x - 1, 0)],
                luma[y, min(x + 1, width - 1)],
            ]
            laplacian[y, x] = sum(around) - 4 * luma[y, x]
    return float(laplacian.std())


@pytest.mark.parametrize("size", [(8, 8), (5, 13), (64, 64)])
@pytest.mark.parametrize(("score", "formula"), [(colourfulness, numpy_colourfulness), (sharpness, numpy_sharpness)])
def test_equals_the_formula(score, formula, size):
    images = random_images(3, 3, *size)
    expected = [formula(image.double().numpy()) for image in images]
    assert score(images).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("score", [colourfulness, sharpness])
def test_gradient_equals_finite_differences(score):
    images = random_images(2, 3, 4, 5, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(score, (images,))


@pytest.mark.parametrize("score", [colourfulness, sharpness])
def test_plain_images_have_a_finite_gradient_and_no_score(score):
    images = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
    scores = score(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert scores.abs().max() < 1e-4
    assert torch.isfinite(gradient).all()


def test_colour_and_detail_score_higher():
    grey = random_images(1, 1, 16, 16).expand(1, 3, -1, -1)
    assert colourfulness(random_images(1, 3, 16, 16)) > 10 * colourfulness(grey)
    smooth = torch.nn.functional.avg_pool2d(grey, 3, stride=1, padding=1)
    assert sharpness(grey) > 2 * sharpness(smooth)


@pytest.mark.parametrize("reward_class", [Colourfulness, Sharpness])
def test_is_a_reward(reward_class):
    reward = reward_class()
    assert isinstance(reward, Reward)
    assert reward.differentiable
    scores = reward(random_images(4, 3, 20, 30).half(), ["a", "b", "c", "d"])
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32


def test_refuses_what_is_no_colour_image():
    with pytest.raises(RequestError, match=r"'sharpness' .* \(batch, 3, height, width\), not \(2, 1, 8, 8\)"):
        split_channels(random_images(2, 1, 8, 8), "sharpness")
