"""Features of prompts, kept: a run asks for the same prompts again and again, and a text tower never changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MOST = 16384


class TextFeatures:
    """A bounded memory of the newest prompts' features.

    Args:
        encode: prompts to features, `(batch, ...)`.
        most: prompts kept.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor], most: int = MOST):
        self._encode, self._most = encode, most
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Features of these prompts, `(batch, ...)`; only new ones are encoded, each once."""
        new = [one for one in dict.fromkeys(prompts) if one not in self._known]
        found = dict(zip(new, self._encode(new), strict=True)) if new else {}
        for prompt in prompts:
            if prompt in self._known:
                self._known.move_to_end(prompt)
            else:
                self._known[prompt] = found[prompt]
        features = torch.stack([self._known[prompt] for prompt in prompts])
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return features

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Drop everything, as when the network moves."""
        self._known.clear()
