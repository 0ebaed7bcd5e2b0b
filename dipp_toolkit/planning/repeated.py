"""Equal blocks of a network: one of them stands for all.

A transformer is some layers, then $n$ equal blocks, then some layers; a UNet has a few rows of such blocks, and some of
its rows equal each other. A dry run keeps the first block of each kind, and `rehearsals` runs it once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ..models import lora
from ..models.lora import AdapterSettings

PARTS = 3
"""Weights that are matrices or kernels, from which a module counts as a block: less is sooner run than looked up."""


class Repeated(nn.Module):
    """In the place of a block that equals another: it has no weights, and computes what the other does.

    Args:
        block: the one that it equals. It is no part of this module, so that its weights are counted and changed once.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._block = (block,)
        self.adapter: AbsentAdapter | None = None

    @property
    def block(self) -> nn.Module:
        """The block that stands for this one."""
        return self._block[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the other computes."""
        return self.block.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What a network asks its blocks beside computing."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_block" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self.__dict__["_block"][0], name)


def kinds_of(network: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of the blocks of a network that equal each other, kind by kind, the first of each kind at first.

    Blocks are children of lists and sequences with at least `PARTS` matrices. They are equal where their classes, what
    they print, and names, shapes and dtypes of their weights are. Inside a block that equals an earlier one none is
    named.
    """
    kinds: dict[tuple[object, ...], list[str]] = {}
    for name, signature in _blocks(network, "", set()):
        kinds.setdefault(signature, []).append(name)
    return tuple(tuple(names) for names in kinds.values() if len(names) > 1)


def _blocks(module: nn.Module, prefix: str, seen: set[tuple[object, ...]]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Names and signatures of blocks, the outer ones first."""
    row = isinstance(module, nn.ModuleList | nn.Sequential)
    for own, child in module.named_children():
        name = f"{prefix}{own}"
        if row and sum(parameter.ndim > 1 for parameter in child.parameters()) >= PARTS:
            signature = _signature(child)
            yield name, signature
            if signature in seen:
                continue
            seen.add(signature)
        yield from _blocks(child, f"{name}.", seen)


def _signature(block: nn.Module) -> tuple[object, ...]:
    """What equal blocks have in common: kind, options that they print, and shapes."""
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in block.named_parameters())
    return type(block), repr(block), shapes


def described(block: nn.Module) -> tuple[object, ...]:
    """All that says what a block computes: what `kinds_of` compares, what is trained, and every plain attribute."""
    parts: list[object] = [_signature(block), tuple(weight.requires_grad for weight in block.parameters())]
    for name, part in block.named_modules():
        plain = [(own, _plain(value)) for own, value in sorted(vars(part).items()) if not own.startswith("_")]
        parts.append((name, type(part), tuple(plain)))
        if isinstance(part, Repeated):
            parts.append(described(part.block))
    return tuple(parts)


def _plain(value: object) -> object:
    """A number, a name and the like; of anything else its class."""
    kinds = value if isinstance(value, tuple) else (value,)
    return value if all(isinstance(kind, bool | int | float | str | None) for kind in kinds) else type(value)


def abridged(network: nn.Module, kinds: tuple[tuple[str, ...], ...]) -> nn.Module:
    """A copy in which every block that equals an earlier one is a `Repeated`. The network stays as it is.

    Args:
        network: to copy.
        kinds: as `kinds_of` finds them.
    """
    whole: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for first, *others in kinds:
            for name in others:
                parent, own = network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
                whole.append((parent, own, parent._modules[own]))  # type: ignore[arg-type]
                parent._modules[own] = Repeated(network.get_submodule(first))
        return copy.deepcopy(network)
    finally:
        for parent, own, block in whole:
            parent._modules[own] = block


@runtime_checkable
class Adapter(Protocol):
    """What is narrowed before a pass; see `dipp_toolkit.models.lora_layers`."""

    narrow: tuple[Tensor, Tensor] | None

    def weights(self) -> tuple[Tensor, Tensor]:
        """A and B."""


class AbsentAdapter(nn.Module):
    """The adapters of a block that is not there: weights, which a pass narrows with all others.

    Args:
        likes: the adapters that they equal.
    """

    narrow: tuple[Tensor, Tensor] | None = None

    def __init__(self, likes: Iterable[Adapter]) -> None:
        super().__init__()
        weights = [like.weights() for like in likes]
        self.a, self.b = (
            nn.Parameter(torch.empty(sum(weight.numel() for weight in some), dtype=some[0].dtype))
            for some in zip(*weights, strict=True)
        )

    def weights(self) -> tuple[Tensor, Tensor]:
        """All A and all B, one after the other."""
        return self.a, self.b


def adapters_of(block: nn.Module) -> list[Adapter]:
    """The adapters of a block, with those of blocks in it that are not there."""
    return cast(list[Adapter], [layer for layer in block.modules() if has_adapter(layer)])


def has_adapter(module: nn.Module) -> bool:
    """Whether it is an adapter that a pass narrows."""
    return hasattr(type(module), "narrow")


def adapted(network: nn.Module, rank: int) -> nn.Module:
    """`models.lora.adapted` of an abridged network: a block that is not there has adapters all the same.

    Args:
        network: abridged.
        rank: of the adapters.
    """
    result = lora.adapted(network, AdapterSettings(rank, float(rank)))
    _adapt_repeated(result)
    from ..models.lora_layers import LAYERS

    setattr(result, LAYERS, [layer for layer in result.modules() if has_adapter(layer)])
    return result


def _adapt_repeated(module: nn.Module) -> None:
    """The adapters of blocks that are not there, those in a block before those of blocks that equal it."""
    for child in module.children():
        if isinstance(child, Repeated):
            _adapt_repeated(child.block)
            if child.adapter is None and (likes := adapters_of(child.block)):
                child.adapter = AbsentAdapter(likes)
        else:
            _adapt_repeated(child)
