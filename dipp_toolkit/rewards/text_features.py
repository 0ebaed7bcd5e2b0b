"""Features of prompts, kept: a run asks for the same prompts again and again, and a text tower never changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

MOST = 16384
CHUNK = 32
"""Prompts that a small tower encodes at once."""
FEW = 4
"""Prompts that a large one does: a batch is filled up, and its rows are dear."""


class TextFeatures:
    """A bounded memory of the newest prompts' features.

    New ones are encoded in batches of one size, always: kernels differ with the size of a batch, and their last digits
    with them. A prompt's features are so the same bits whatever it is encoded beside, in a resumed run as in one that
    never stopped.

    Args:
        encode: prompts to features, `(batch, ...)`.
        most: prompts kept.
        together: that size.
    """

    memories: ClassVar = ("_known",)

    def __init__(self, encode: Callable[[Sequence[str]], Tensor], most: int = MOST, together: int = CHUNK):
        self._encode, self._most, self._together = encode, most, together
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Features of these prompts, `(batch, ...)`; only new ones are encoded, each once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        features_by_prompt = {
            prompt: row
            for start in range(0, len(new), self._together)
            for prompt, row in self._read(new[start : start + self._together])
        }
        for prompt in prompts:
            if prompt in self._known:
                self._known.move_to_end(prompt)
            else:
                self._known[prompt] = features_by_prompt[prompt]
        features = torch.stack([self._known[prompt] for prompt in prompts])
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return features

    def _read(self, prompts: Sequence[str]) -> list[tuple[str, Tensor]]:
        filled = [*prompts, *[prompts[-1]] * (self._together - len(prompts))]
        return list(zip(prompts, self._encode(filled)[: len(prompts)], strict=True))

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Drop everything, as when the network moves."""
        self._known.clear()
