"""What passes and clipping leave in memory, and what they leave untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dipp_toolkit.planning.dry_run import cost_of, dry, faked
from dipp_toolkit.training.optim import clipped_norm
from dipp_toolkit.utils.precision import pass_autocast

WIDTH = 64


def kept_after_a_pass(autocast: torch.autocast) -> int:
    """Bytes alive after a pass whose output is dropped, within a context that goes on."""
    network = nn.Linear(WIDTH, WIDTH, bias=False)
    with dry(gpu=False), autocast:
        faked(network)
        cost, _ = cost_of(lambda: network(torch.zeros(1, WIDTH)))
    return cost.kept


def test_no_narrow_copy_of_a_weight_outlives_its_pass() -> None:
    assert kept_after_a_pass(pass_autocast("cpu", torch.bfloat16)) == 0
    assert kept_after_a_pass(torch.autocast("cpu", torch.bfloat16)) >= 2 * WIDTH * WIDTH  # what torch does by itself


def test_no_precision_is_no_autocast() -> None:
    with pass_autocast("cpu", None):
        assert not torch.is_autocast_enabled("cpu")
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.float32


def parameters_with_gradient(norm: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    gradients = [torch.randn_like(item) for item in parameters[:2]]
    whole = torch.cat([item.flatten() for item in gradients]).norm()
    for parameter, gradient in zip(parameters, gradients, strict=False):  # the last has none
        parameter.grad = gradient * (norm / whole)
    return parameters


@pytest.mark.parametrize("norm", [0.0, 0.3, 0.999999, 1.0, 1.0000005, 7.0, float("inf"), float("nan")])
def test_clipping_is_torchs(norm: float) -> None:
    torch.manual_seed(1)
    ours = parameters_with_gradient(norm)
    torch.manual_seed(1)
    theirs = parameters_with_gradient(norm)
    torch.testing.assert_close(
        clipped_norm(ours, 1.0), nn.utils.clip_grad_norm_(theirs, 1.0), rtol=0, atol=0, equal_nan=True
    )
    for our, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(our.grad, other.grad, rtol=0, atol=0, equal_nan=True)


def test_gradients_within_the_norm_are_not_written() -> None:
    small, large = parameters_with_gradient(0.5), parameters_with_gradient(2.0)
    before = [[item.grad._version for item in some[:2] if item.grad is not None] for some in (small, large)]
    for some in (small, large):
        clipped_norm(some, 1.0)
    after = [[item.grad._version for item in some[:2] if item.grad is not None] for some in (small, large)]
    assert after[0] == before[0]
    assert all(now > then for now, then in zip(after[1], before[1], strict=True))
