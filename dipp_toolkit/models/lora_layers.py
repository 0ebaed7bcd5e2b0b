r"""How a layer with an adapter computes $y = W x + b + \frac{a}{r} B A x$ in as few kernels as there can be.

peft's layers hold the weights, name them, save and merge them; the formula is here because theirs is written for every
kind of adapter: two products, a multiplication and an addition beside the layer's own product, and under autocast one
more cast for each of A and B in each call. Here it is

- with a graph, and in half precision: the layer's product, $h = A x$, and $y \mathrel{+}= \frac{a}{r} B h$ as one
  product that adds to what is there; on the way back, the adapter's part of x's gradient is added by its product too.
  A and B are cast once a pass of the whole network, all of them in one call (`narrow_adapters`), and so are their
  gradients on the way back. An input that several layers take, as queries, keys and values do, is cast once;
- without a graph, in float32: $W + \frac{a}{r} B A$ as one product, used once and dropped, and then a plain layer. It
  takes the memory of one weight, and is done where it takes fewer operations than the pair.

The sum is not made in half precision, where it would be rounded to a neighbour of W. All updates are small at first: of
one of a thousandth of W, on random layers 512 wide, what the output feels has a cosine of 0.31 with the truth through a
sum in bfloat16, and of 0.64 through the pair; of a hundredth, 0.96 and 0.99.

Adapters with dropout, DoRA or biases are computed by peft, and frozen weights of any kind (8 or 4 bits) by their own
layer, to whose output the pair adds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners import lora as peft_lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .paired_products import ConvolutionPair, LinearPair, of_one_kind
from .shared_casts import SharedCasts

NAME = "default"
LAYERS = "_adapted_layers"
"""Where a network keeps the list of its layers that are computed here."""


class _Narrowed(torch.autograd.Function):
    """Copies of all tensors in another dtype by one multi-tensor call, and their gradients back by another."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return _copied(list(tensors), [dtype] * len(tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [index for index, gradient in enumerate(gradients) if gradient is not None]
        result: list[Tensor | None] = [None] * len(gradients)
        wide = _copied([gradients[index] for index in there], [ctx.dtypes[index] for index in there])
        for index, gradient in zip(there, wide, strict=True):
            result[index] = gradient
        return None, *result


def _copied(tensors: list[Any], dtypes: list[torch.dtype]) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return tuple(copies)


class _Paired:
    """What both kinds of layers share.

    Attributes:
        casts: of the network's inputs of layers.
        narrow: A and B in the pass's half precision, with their graph; None in passes without autocast.
        version: of the weights that they were made of. By itself, because compiled code depends on what it reads.
    """

    casts: SharedCasts | None = None
    narrow: tuple[Tensor, Tensor] | None = None
    version: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a pass: tensors with a graph cannot be copied."""
        return {name: value for name, value in vars(self).items() if name != "narrow"}

    def weights(self) -> tuple[Any, Any]:
        """A and B as they are trained."""
        layer: Any = self
        return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight

    def active(self) -> bool:
        """Whether this adapter, and no other, is to be added."""
        layer: Any = self
        return not layer._disable_adapters and not layer.merged_adapters and layer._active_adapter in (NAME, [NAME])

    def pair(self) -> tuple[Tensor, Tensor]:
        """A and B as this pass takes them."""
        a, b = self.weights()
        if self.narrow is None:
            return a, b
        narrow_a, narrow_b = self.narrow
        if torch.is_grad_enabled() and a.requires_grad and not narrow_a.requires_grad:
            return a, b  # they were made for a pass without a graph; this is a block that is recomputed
        if not torch.compiler.is_compiling() and self.version != a._version + b._version:
            return a, b  # the layer is called by itself, after an update
        return narrow_a, narrow_b

    def narrowed(self, x: Tensor, a: Tensor) -> Tensor:
        """The input as A is: under autocast both products would cast it, and keep a copy each."""
        if self.narrow is None or a.dtype.itemsize >= 4 or x.dtype == a.dtype:
            return x
        return x.to(a.dtype) if self.casts is None else self.casts.of(x, a.dtype)


def _adds_exactly(x: Tensor, weight: Tensor, a: Tensor) -> bool:
    """Whether a pass without a graph may add the adapter into a copy of the weight: nothing is rounded to half."""
    return (
        not torch.is_grad_enabled()
        and x.dtype == weight.dtype == a.dtype
        and x.dtype.itemsize >= 4
        and not torch.is_autocast_enabled(x.device.type)
        and not is_traceable_wrapper_subclass(weight)  # in few bits, or in parts
    )


class PairedLinear(_Paired, peft_lora.Linear):
    """peft's linear layer."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        if args or kwargs or not self.active():
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = self.pair()
        scale, rows = self.scaling[NAME], x.numel() // max(1, x.shape[-1])
        plain = type(base) is nn.Linear
        if plain and _adds_exactly(x, base.weight, a) and a.shape[1] * len(b) < rows * (a.shape[1] + len(b)):
            return F.linear(x, torch.addmm(base.weight, b, a, alpha=scale), base.bias)
        flat = self.narrowed(x, a)
        flat = flat.reshape(-1, x.shape[-1]) if x.ndim != 2 else flat
        if plain and of_one_kind(flat, base, a, b):
            output: Tensor = LinearPair.apply(flat, base.weight, base.bias, a, b, scale)
        else:
            hidden = F.linear(flat, a)
            output = base(flat)
            if plain and output.dtype == hidden.dtype:
                output.addmm_(hidden, b.t().to(hidden.dtype), alpha=scale)
            else:
                output = torch.addmm(output, hidden, b.t(), alpha=scale).to(output.dtype)
        return output if x.ndim == 2 else output.view(*x.shape[:-1], -1)


class PairedConv2d(_Paired, peft_lora.Conv2d):
    """peft's convolution layer."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        if args or kwargs or not self.active():
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = self.pair()
        scale = self.scaling[NAME]
        inputs, outputs = math.prod(a.shape[1:]), len(b)
        if _adds_exactly(x, base.weight, a):
            places = len(x) * math.prod(
                (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
                for side, pad, dilation, kernel, stride in zip(
                    x.shape[2:], base.padding, base.dilation, base.kernel_size, base.stride, strict=True
                )
            )
            if inputs * outputs < places * (inputs + outputs):
                added = torch.addmm(base.weight.reshape(outputs, -1), b.flatten(1), a.flatten(1), alpha=scale)
                result = base._conv_forward(x, added.view(base.weight.shape), base.bias)
                return result
        down: Any = self.lora_A[NAME]
        x = self.narrowed(x, a)
        if of_one_kind(x, base, a, b):
            places = tuple(base.stride), tuple(base.padding), tuple(base.dilation)
            return ConvolutionPair.apply(x, base.weight, base.bias, a, b, scale, places)
        hidden = F.conv2d(x, a, None, down.stride, down.padding, down.dilation)
        result = base(x)
        return result.add_(F.conv2d(hidden, b), alpha=scale)


KINDS: dict[type, type] = {peft_lora.Linear: PairedLinear, peft_lora.Conv2d: PairedConv2d}
"""peft's own classes, no class derived from them, and what takes their place."""


def compute_in_pairs(network: nn.Module) -> None:
    """Have the plain adapters of a network computed here, in place; their names and weights stay as they are."""
    found: list[Any] = []
    casts = SharedCasts()
    for layer in network.modules():
        kind = KINDS.get(type(layer))
        if kind is not None and _is_plain(layer):
            layer.__class__ = kind
            vars(layer)["casts"] = casts
            found.append(layer)
    setattr(network, LAYERS, found)
    network.register_forward_pre_hook(narrow_adapters)


def forget_pairs(network: nn.Module) -> None:
    """Undo what `compute_in_pairs` left with a network whose adapters are merged."""
    for key, hook in list(network._forward_pre_hooks.items()):
        if hook is narrow_adapters:
            del network._forward_pre_hooks[key]
    if hasattr(network, LAYERS):
        delattr(network, LAYERS)


def _is_plain(layer: Any) -> bool:
    base = layer.base_layer
    return (
        list(layer.lora_A) == [NAME]
        and not getattr(layer, "lora_variant", None)
        and not any(layer.use_dora.values())
        and isinstance(layer.lora_dropout[NAME], nn.Identity)
        and layer.lora_B[NAME].bias is None
        and not getattr(layer, "fan_in_fan_out", False)
        and (
            not isinstance(base, nn.Conv2d)
            or (
                type(base) is nn.Conv2d
                and base.groups == 1
                and base.padding_mode == "zeros"
                and not isinstance(base.padding, str)
            )
        )
    )


def narrow_adapters(network: nn.Module, _: Any) -> None:
    """Before a pass: A and B of all layers in the pass's precision, where autocast would cast each in each layer."""
    if torch.compiler.is_compiling():
        return
    layers: list[Any] = getattr(network, LAYERS)
    weights = [weight for layer in layers for weight in layer.weights()]
    dtype = _narrow_dtype(weights)
    if dtype is None:
        for layer in layers:
            vars(layer).pop("narrow", None)
        return
    narrow = _Narrowed.apply(dtype, *weights)
    for layer, a, b in zip(layers, narrow[::2], narrow[1::2], strict=True):
        vars(layer).update(narrow=(a, b), version=sum(weight._version for weight in layer.weights()))


def _narrow_dtype(weights: list[Any]) -> torch.dtype | None:
    """The dtype that autocast would give the weights; None where it is off, or they are in parts, joined layer by layer
    as the pass goes."""
    if not weights or hasattr(weights[0], "full_tensor"):
        return None
    kind = weights[0].device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
