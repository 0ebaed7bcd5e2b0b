"""The rows of what `dipp verify` prints: of a term against its closed forms, and of a training loop."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Numbers = float | list[float] | list[list[float]]


class _Row:
    """A row with an error that has to be within a tolerance."""

    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON, `passed` included; NaN and infinities become None."""
        values: dict[str, Any] = _finite({**asdict(self), "passed": self.passed})  # type: ignore[call-overload]
        return values


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class VerifyRow(_Row):
    r"""One quantity of one case, as it should be and as it was reached.

    Attributes:
        case: name of the case.
        term: what was verified, its options in brackets.
        assistant: `"exact"` (closed form) or `"learned"` (denoising score matching).
        quantity: `"mean"` or `"covariance"` of the generator's law, or `"gradient"` in its parameters.
        expected: its value at the optimum, a vector or a matrix by rows.
        reached: its value after training.
        error: $\|reached - expected\| / \|expected\|$ (Euclidean, Frobenius); relative to the
            reference's where nothing is expected to be left, a covariance of zero say.
        tolerance: largest error that passes.
    """

    case: str
    term: str
    assistant: str
    quantity: str
    expected: Numbers
    reached: Numbers
    error: float
    tolerance: float

    @classmethod
    def compare(
        cls,
        case: str,
        term: str,
        assistant: str,
        quantity: str,
        expected: Tensor,
        reached: Tensor,
        tolerance: float,
        scale: float = 0.0,
    ) -> VerifyRow:
        """The row of two tensors of one shape.

        Args:
            case: name of the case.
            term: the term.
            assistant: `"exact"` or `"learned"`.
            quantity: what the tensors are.
            expected: at the optimum.
            reached: after training.
            tolerance: largest error that passes.
            scale: what the error is relative to where less than a thousandth of it is expected: the norm of the
                reference's own mean or covariance.
        """
        size = torch.linalg.norm(expected).item()
        error = torch.linalg.norm(reached - expected).item() / (size if size > scale / 1000 else scale)
        return cls(case, term, assistant, quantity, expected.tolist(), reached.tolist(), error, tolerance)


@dataclass(frozen=True)
class LoopRow(_Row):
    """One property of a training loop, as it should be and as it was seen.

    Attributes:
        case: name of the case.
        quantity: what was looked at, `"inputs of step 2"` say.
        expected: what a right loop shows.
        reached: what this one showed.
        error: how far they are apart; each check says in which unit.
        tolerance: largest error that passes: a size, or the standard errors of the estimate where they are larger.
        meaning: where the row fails, what that means and the usual cause; otherwise empty.
    """

    case: str
    quantity: str
    expected: Numbers
    reached: Numbers
    error: float
    tolerance: float
    meaning: str = ""
