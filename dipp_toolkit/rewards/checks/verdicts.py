"""What a check says: a status, what was found, what to do about it; and when two lists of scores count as equal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Status = Literal["ok", "warning", "failed", "skipped"]
Closeness = Literal["same", "near", "different"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    Attributes:
        status: `failed` where training with the reward would go wrong, `warning` where somebody should look.
        found: what was seen, a sentence.
        advice: what to do; empty where there is nothing to do.
    """

    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class CheckRow:
    """A verdict with the name of its check."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """`{"name", "status", "found", "advice"}`, as `dipp reward check --json` has it."""
        return asdict(self)


def ok(finding: str) -> Verdict:
    """All is well."""
    return Verdict("ok", finding)


def warning(finding: str, advice: str = "") -> Verdict:
    """Somebody should look."""
    return Verdict("warning", finding, advice)


def failed(finding: str, advice: str = "") -> Verdict:
    """The reward is broken in this."""
    return Verdict("failed", finding, advice)


def skipped(finding: str) -> Verdict:
    """The check could not be made, and why."""
    return Verdict("skipped", finding)


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
    difference = gap(first, second)
    if difference <= 1e-3 * spread + 1e-5 * largest:
        return "same"
    return "near" if difference <= 5e-2 * spread + 1e-3 * largest else "different"


def spread_of(scores: Float[Tensor, " batch"]) -> float:
    """Deviation of scores over pictures, 0 for one picture."""
    return scores.std(correction=0).item()
