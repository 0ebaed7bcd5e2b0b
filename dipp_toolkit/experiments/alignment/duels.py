"""Which images of new and old are compared: those of the same prompt and noise, each pair once, in random order."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from ...preferences.pair import Candidate, Comparison


class Duels:
    """A picker of pairs of one image of each of two makers.

    The images of a maker are in the order of prompts and noises, so that the n-th of a prompt are of the same noise.

    Args:
        images: of two makers.
        seed: of the order.
    """

    def __init__(self, images: Sequence[Candidate], seed: int = 0):
        by_prompt: dict[str, dict[str, list[int]]] = {}
        for image in images:
            by_prompt.setdefault(image.prompt, {}).setdefault(image.maker, []).append(image.id)
        self._pairs = [
            (one, other)
            for makers in by_prompt.values()
            if len(makers) == 2
            for one, other in zip(*makers.values(), strict=False)
        ]
        random.Random(seed).shuffle(self._pairs)

    def pick(self, voter: str, avoid: Collection[frozenset[int]] = ()) -> tuple[int, int] | None:
        """The first pair that is not to be avoided; None where there is none left."""
        return next((pair for pair in self._pairs if frozenset(pair) not in avoid), None)

    def add(self, comparison: Comparison) -> None:
        """Nothing is learned: every pair is asked."""
