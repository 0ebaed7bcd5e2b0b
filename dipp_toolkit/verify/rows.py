"""The table that a verification makes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Numbers = list[float] | list[list[float]]


@dataclass(frozen=True)
class VerifyRow:
    r"""One quantity of one case, as it should be and as it was reached.

    Attributes:
        case: name of the case.
        term: the divergence that was verified.
        assistant: `"exact"` (closed form) or `"learned"` (denoising score matching).
        quantity: `"mean"` or `"covariance"` of the generator's law.
        expected: its value at the optimum, a vector or a matrix by rows.
        reached: its value after training.
        error: $\|reached - expected\| / \|expected\|$ (Euclidean, Frobenius).
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
        cls, case: str, term: str, assistant: str, quantity: str, expected: Tensor, reached: Tensor, tolerance: float
    ) -> VerifyRow:
        """The row of two tensors of one shape."""
        error = (torch.linalg.norm(reached - expected) / torch.linalg.norm(expected)).item()
        return cls(case, term, assistant, quantity, expected.tolist(), reached.tolist(), error, tolerance)

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; an error that is no number is not."""
        return self.error <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, `passed` included; what is no finite number becomes None."""
        return _finite({**asdict(self), "passed": self.passed})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
