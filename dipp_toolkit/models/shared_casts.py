"""Casts of activations that several layers of a network take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary


class SharedCasts:
    """What a network's activations became in half precision, for as long as they live.

    Under autocast every layer casts its input, and keeps the copy for its way back: queries, keys and values three of
    the same, and all cross-attentions one of the text each. No graph lives longer for it: of a cast with a graph only a
    weak reference is held, which lasts while a layer keeps it for its way back.
    """

    def __init__(self) -> None:
        self._casts: Any = WeakTensorKeyDictionary()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return SharedCasts, ()  # a copy of a network begins without any

    def of(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The activation in another dtype, with its graph where one is made."""
        if torch.compiler.is_compiling() or x.is_inference():  # compiled code casts once by itself
            return x.to(dtype)
        graph = torch.is_grad_enabled() and x.requires_grad
        version, kept = self._casts.get(x, (-1, None))
        known: Tensor | None = kept() if isinstance(kept, TensorWeakRef) else kept
        if known is not None and (version, known.dtype) == (x._version, dtype) and (known.requires_grad or not graph):
            return known
        cast = x.to(dtype)
        self.know(x, cast)
        return cast

    def know(self, x: Tensor, cast: Tensor) -> None:
        """What an activation is in another dtype, from now on."""
        graph = torch.is_grad_enabled() and x.requires_grad
        self._casts[x] = x._version, TensorWeakRef(cast) if graph else cast

    def dtype_of(self, x: Tensor) -> torch.dtype | None:
        """What an activation was cast to; None where it was not."""
        _, kept = self._casts.get(x, (-1, None))
        known = kept() if isinstance(kept, TensorWeakRef) else kept
        return None if known is None else known.dtype
