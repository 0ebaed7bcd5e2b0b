"""Deterministic kernels: our ways back against autograd's, and what happens where torch has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from dipp_toolkit.utils import deterministic
from dipp_toolkit.utils.deterministic import Tolerance, missing_kernel, ordinary_kernels, pooled_to, resized

NO_KERNEL = (
    "upsample_bicubic2d_aa_backward_out_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'."
)


def gradient_of(work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    out = work(leaf)
    (gradient,) = torch.autograd.grad(out, leaf, torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out))
    return gradient


@pytest.mark.parametrize(
    "work",
    [
        lambda x: resized(x, (5, 9), "bicubic"),
        lambda x: resized(x, (5, 9), "bilinear"),
        lambda x: resized(x, (24, 31), "bicubic"),
        lambda x: pooled_to(x, 4),
    ],
    ids=["smaller by cubics", "smaller by lines", "larger", "pooled"],
)
def test_products_lead_back_as_autograd_does(monkeypatch: pytest.MonkeyPatch, work: Callable[[Tensor], Tensor]) -> None:
    images = torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, value = gradient_of(work, images), work(images)
    monkeypatch.setattr(deterministic, "_goes_back_by_products", lambda images: images.requires_grad)
    ours = gradient_of(work, images)
    assert (ours - plain).abs().max() < 1e-12
    assert torch.equal(work(images.clone().requires_grad_(True)), value)  # the way there is torch's own
    half = gradient_of(work, images.bfloat16()) if work(images).shape[-1] == 4 else ours.bfloat16()
    assert half.dtype == torch.bfloat16 and (half - plain).abs().max() < 0.05


def test_a_resize_is_torchvisions() -> None:
    from torchvision.transforms import functional as tv

    images = torch.rand(2, 3, 33, 47)
    mode = tv.InterpolationMode.BICUBIC
    assert torch.equal(resized(images, (12, 20), "bicubic"), tv.resize(images, [12, 20], mode, antialias=True))


@contextmanager
def strict() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_needs_an_ordinary_kernel_gets_one_from_the_second_try_on() -> None:
    tolerance, ways = Tolerance(), []

    def work() -> int:
        ways.append(torch.is_deterministic_algorithms_warn_only_enabled())
        if not ways[-1]:
            raise RuntimeError(NO_KERNEL)
        return 7

    with strict():
        assert tolerance(work) == 7 and tolerance(work) == 7
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert ways == [False, True, True]
    assert tolerance.needed == "upsample_bicubic2d_aa_backward_out_cuda"


def test_other_failures_are_raised_at_once() -> None:
    tolerance, calls = Tolerance(), []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("out of memory")

    with strict(), pytest.raises(RuntimeError, match="out of memory"):
        tolerance(work)
    assert len(calls) == 1 and not tolerance.needed


def test_the_cause_of_an_error_says_it_too() -> None:
    try:
        try:
            raise RuntimeError(NO_KERNEL)
        except RuntimeError as inner:
            raise ValueError("The reward failed.") from inner
    except ValueError as outer:
        assert missing_kernel(outer) == "upsample_bicubic2d_aa_backward_out_cuda"
    assert missing_kernel(ValueError("does not have a deterministic implementation")) == ""
    assert missing_kernel(None) == ""


def test_ordinary_kernels_change_nothing_where_none_are_strict() -> None:
    with ordinary_kernels():
        assert not torch.are_deterministic_algorithms_enabled()
