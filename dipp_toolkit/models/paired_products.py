r"""A frozen layer and its adapter, $y = W x + b + s B A x$, as one function of autograd.

Autograd's own way back of the same products adds the two parts of x's gradient in a call of its own, and that of a
product which adds to a convolution's output sums over images in another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Places = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Stride, padding and dilation of a convolution."""
ONE_PIXEL: Places = (1, 1), (0, 0), (1, 1)


def of_one_kind(x: Tensor, base: Any, a: Any, b: Any) -> bool:
    """Whether a layer and its adapter are plain tensors of one dtype, and the layer is frozen.

    Compiled code fuses by itself, and does not see through functions of autograd everywhere.
    """
    frozen = [base.weight] if base.bias is None else [base.weight, base.bias]
    kind = x.device.type
    return (
        not torch.compiler.is_compiling()
        and all(tensor.dtype == x.dtype and not is_traceable_wrapper_subclass(tensor) for tensor in (*frozen, a, b))
        and not any(tensor.requires_grad for tensor in frozen)
        and not (torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != x.dtype)
    )


class LinearPair(torch.autograd.Function):
    r"""$y = W x + b + s B A x$ of one dtype, with W frozen: three products, and five at most on the way back.

    Autograd's own way back of the same products adds the two parts of x's gradient in a call more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        hidden = F.linear(x, a)
        output = F.linear(x, weight, bias)
        output.addmm_(hidden, b.t(), alpha=scale)
        ctx.save_for_backward(x, weight, a, b, hidden)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, hidden = ctx.saved_tensors
        of_x, _, _, of_a, of_b, _ = ctx.needs_input_grad
        with torch.autocast(gradient.device.type, enabled=False):
            if torch.is_grad_enabled():  # what comes back is differentiated once more
                hidden = F.linear(x, a)
            felt = _scaled(gradient @ b, ctx.scale)
            by_x = (gradient @ weight).addmm_(felt, a) if of_x else None
            by_a = felt.t() @ x if of_a else None
            by_b = _scaled(gradient.t() @ hidden, ctx.scale) if of_b else None
        return by_x, None, None, by_a, by_b, None


class ConvolutionPair(torch.autograd.Function):
    """The same of convolutions: what B does to a pixel is a product, which adds to the output in the same call."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, places: Places
    ) -> Tensor:
        hidden = F.conv2d(x, a, None, *places)
        output = F.conv2d(x, weight, bias, *places)
        _add_pixels(output, hidden, b, scale)
        ctx.save_for_backward(x, weight, a, b, hidden)
        ctx.scale, ctx.places = scale, places
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, hidden = ctx.saved_tensors
        of_x, _, _, of_a, of_b, _, _ = ctx.needs_input_grad
        with torch.autocast(gradient.device.type, enabled=False):
            if torch.is_grad_enabled():
                hidden = F.conv2d(x, a, None, *ctx.places)
            felt, by_b = _convolved_back(gradient, hidden, b, ONE_PIXEL, [True, of_b])
            felt = _scaled(felt, ctx.scale)
            through_a, by_a = _convolved_back(felt, x, a, ctx.places, [of_x, of_a])
            by_x = _convolved_back(gradient, x, weight, ctx.places, [True, False])[0].add_(through_a) if of_x else None
            by_b = _scaled(by_b, ctx.scale) if of_b else None
        return by_x, None, None, by_a, by_b, None, None


def _convolved_back(gradient: Tensor, x: Tensor, weight: Tensor, places: Places, wanted: list[bool]) -> tuple[Any, Any]:
    """Gradients of a convolution's input and weight, those that are wanted."""
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *places, False, [0, 0], 1, [*wanted, False]
    )
    return by_x, by_weight


def _scaled(tensor: Tensor, scale: float) -> Tensor:
    return tensor if scale == 1 else tensor.mul_(scale)


def _add_pixels(output: Tensor, hidden: Tensor, b: Tensor, scale: float) -> None:
    """Add s B h to every pixel of a convolution's output, in place."""
    if output.is_contiguous() and hidden.is_contiguous():
        many = b.flatten(1).expand(len(output), -1, -1)
        output.flatten(2).baddbmm_(many, hidden.flatten(2), alpha=scale)
    else:  # channels last, whose pixels are no matrix of channels by places
        output.add_(F.conv2d(hidden, b), alpha=scale)
