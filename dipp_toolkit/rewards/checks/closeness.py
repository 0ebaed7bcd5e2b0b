"""When two lists of scores are the same, given that computers round."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Closeness = Literal["same", "near", "different"]


def gap(first: Float[Tensor, " batch"], second: Float[Tensor, " batch"]) -> float:
    """The largest difference."""
    return (first - second).abs().max().item()


def compare(first: Float[Tensor, " batch"], second: Float[Tensor, " batch"], spread: float = 0.0) -> Closeness:
    r"""Whether scores that should be equal are.

    With the largest score $m$ and the spread $s$ between pictures, `same` is a difference below
    $10^{-3} s + 10^{-5} m$, what float32 does in another order of summation; `near` is one below
    $5 \cdot 10^{-2} s + 10^{-3} m$, what half precision does.

    Args:
        first: scores.
        second: scores of the same images.
        spread: deviation of the scores over different pictures; 0 to allow for rounding alone.
    """
    largest = max(first.abs().max().item(), second.abs().max().item())
    found = gap(first, second)
    if found <= 1e-3 * spread + 1e-5 * largest:
        return "same"
    return "near" if found <= 5e-2 * spread + 1e-3 * largest else "different"


def spread_of(scores: Float[Tensor, " batch"]) -> float:
    """Deviation of scores over pictures, 0 for one picture."""
    return scores.std(correction=0).item()
