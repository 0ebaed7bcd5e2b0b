r"""Linear layers whose frozen weights are kept in 8 or 4 bits, by bitsandbytes' kernels.

`int8` keeps each row $w$ of a weight as $\mathrm{round}(127 w / \max |w|)$, 8 bits a weight. `nf4` keeps blocks of 64
weights, divided by their largest, as the nearest of 16 quantiles of a normal law (Dettmers et al. 2023, arXiv
2305.14314), 4.5 bits a weight. A pass makes the weight again in the pass's own dtype, uses it and drops it; so does the
way back, which asks for the gradient of the input alone. Convolutions, norms and biases are not quantised.

The layer is ours because bitsandbytes' own differ from what autocast does to a linear layer and from what a training
here asks of frozen weights: `Linear4bit` gives back the dtype that it was given, `Linear8bitLt` rounds what comes in to
8 bits as well, both write their codes into every state dict, and peft merges adapters into either. Here the codes are
parameters without gradients like other frozen weights: shared between networks, and not in checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PluginError, RequestError, first_line
from ..utils.packages import not_installed
from ..utils.precision import narrowed_to

Kind = Literal["int8", "nf4"]

KINDS: tuple[Kind, ...] = ("int8", "nf4")
BLOCK = 64
"""Weights of nf4 that share a scale."""
SMALLEST = 4096
"""Weights from which a layer is quantised; smaller ones take no memory to speak of."""


class QuantizedLinear(nn.Linear):
    """A linear layer with codes and scales in place of a weight; made by `quantize`.

    Attributes:
        codes: int8 of the weight's shape, or uint8 of two weights each.
        scales: float32 of a row or a block, as int32 of the same bits, so that no cast of a network rounds them.
        kind: `"int8"` or `"nf4"`.
        kept_dtype: of the weight before.
    """

    codes: Tensor
    scales: Tensor
    kind: Kind
    kept_dtype: torch.dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """What the codes stand for, as a new tensor: changing it changes nothing."""
        return dequantized(self.codes, self.scales, self.kind, (self.out_features, self.in_features), self.kept_dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(narrowed_to(x.device) or x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        shape = (self.out_features, self.in_features)
        output: Tensor = _Product.apply(x, bias, self.codes, self.scales, self.kind, shape)
        return output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.kind}"


class _Product(torch.autograd.Function):
    """The layer's output; the graph keeps the codes, not the weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, codes: Tensor, scales: Tensor, kind: Kind, shape: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.kind, ctx.shape = kind, shape
        return F.linear(x, dequantized(codes, scales, kind, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:  # type: ignore[override]
        codes, scales = ctx.saved_tensors
        weight = dequantized(codes, scales, ctx.kind, ctx.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None, None


def dequantized(codes: Tensor, scales: Tensor, kind: Kind, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight of some shape that codes stand for, in the dtype that is asked for."""
    scale, operations = scales.view(torch.float32), torch.ops.bitsandbytes
    weight: Tensor
    if kind == "nf4":  # a row a block: of other rows, bitsandbytes' kernel for CPUs mistakes blocks that span two
        weight = operations.dequantize_4bit(codes, scale, BLOCK, kind, (len(scales), BLOCK), dtype).view(shape)
    else:
        weight = operations.int8_vectorwise_dequant(codes, scale).to(dtype)
    return weight


def quantizable(network: nn.Module) -> Iterator[nn.Linear]:
    """The layers of a network that `quantize` changes: those of whole blocks of weights, and of enough of them."""
    for layer in network.modules():
        if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST and layer.weight.numel() % BLOCK == 0:
            yield layer


def is_quantized(network: nn.Module) -> bool:
    """Whether a network has layers in 8 or 4 bits."""
    return any(isinstance(layer, QuantizedLinear) for layer in network.modules())


@contextmanager
def quiet_kernels() -> Iterator[None]:
    """Inside, bitsandbytes is imported (peft does it too) without its warning of a kernel that is not used here.

    On some processors it looks for a faster product of 4-bit weights in the package `kernels`.
    """
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_library(kind: Kind) -> None:
    """Import what quantises.

    Raises:
        PluginError: bitsandbytes is not installed, or cannot be used.
    """
    try:
        with quiet_kernels():
            import bitsandbytes.functional  # noqa: F401 -- it registers its operations with torch
    except ImportError as error:
        raise not_installed(f"frozen_precision={kind} needs", ["bitsandbytes"]) from error
    except Exception as error:  # its native library raises errors of many kinds
        raise PluginError(f"frozen_precision={kind} needs bitsandbytes, which fails: {first_line(error)}.") from error


@torch.no_grad()
def quantize(network: nn.Module, kind: Kind, device: torch.device | None = None) -> None:
    """Keep the weights of a network's linear layers in 8 or 4 bits from now on, in place; the network is frozen.

    Args:
        network: of which no other has the weights: one that shares them would keep them alive.
        kind: `"int8"` or `"nf4"`.
        device: where layers are quantised, one after the other, and left; where they are by default.

    Raises:
        PluginError: bitsandbytes is not installed.
        RequestError: the network has no layer to quantise, or the device cannot.
    """
    check_library(kind)
    network.requires_grad_(False)
    layers = list(quantizable(network))
    if not layers:
        raise RequestError(
            f"frozen_precision={kind} keeps linear layers of at least {SMALLEST:,} weights in fewer bits, and "
            f"{type(network).__name__} has none. Set frozen_precision=bf16."
        )
    for layer in layers:
        _quantize_layer(layer, kind, device or layer.weight.device)


def quantize_like(model: nn.Module, network: nn.Module, device: torch.device | None = None) -> None:
    """Keep a network's weights in as many bits as another's, in place; as they are where the other's are whole."""
    kind = next((layer.kind for layer in model.modules() if isinstance(layer, QuantizedLinear)), None)
    if kind is not None:
        quantize(network, kind, device)


def _quantize_layer(layer: Any, kind: Kind, device: torch.device) -> None:
    weight = layer.weight.detach().to(device)
    try:
        if kind == "nf4":
            codes, scales = torch.ops.bitsandbytes.quantize_4bit(weight.contiguous(), BLOCK, kind, torch.uint8)
        else:  # the kernel reads float16, which holds every bit of bfloat16's
            codes, scales, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(weight.half().contiguous())
    except Exception as error:  # whatever a kernel makes of a device that it is not for
        raise RequestError(
            f"frozen_precision={kind} does not work on {device}: {first_line(error)}. Set frozen_precision=bf16."
        ) from error
    del layer._parameters["weight"]
    layer.__class__ = QuantizedLinear  # in place: the layer keeps its name, its hooks and its bias
    layer.kind, layer.kept_dtype = kind, weight.dtype
    layer.codes = nn.Parameter(codes, requires_grad=False)
    layer.scales = nn.Parameter(scales.float().view(torch.int32), requires_grad=False)


def bytes_of(weights: int, rows: int, kind: Kind) -> int:
    """Bytes of quantised weights and their scales.

    Args:
        weights: their number.
        rows: rows of the layers they are in, together.
        kind: `"int8"` or `"nf4"`.
    """
    return weights + 4 * rows if kind == "int8" else weights // 2 + 4 * (weights // BLOCK)
