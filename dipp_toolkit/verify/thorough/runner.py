"""`dipp verify --thorough`: which rows there are, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import RequestError
from ...utils.messages import unknown_name
from ..rows import VerifyRow
from . import collapse, dmd_rows, gradient_rows, train_world

THOROUGH: dict[str, Callable[[int], list[VerifyRow]]] = {
    gradient_rows.CASE: gradient_rows.gradient_rows,
    dmd_rows.CASE: dmd_rows.dmd_rows,
    collapse.CASE: collapse.collapse_rows,
    train_world.CASE: train_world.train_rows,
}
"""The rows by what people type as a case; each takes the seed."""


def run_thorough(cases: Sequence[str] | None = None, seed: int = 0) -> list[VerifyRow]:
    """Hold gradients, the weighting `dmd` and trainings through `train()` against closed forms in six dimensions.

    Args:
        cases: names of `THOROUGH`; all of them unless given.
        seed: of every draw.

    Returns:
        The rows: gradients of every process with every weighting and law of times; what is known of `dmd`; a direction
        that a curved reward leaves, and one that it collapses; mean and covariance after whole runs.

    Raises:
        RequestError: a name is unknown.
    """
    for name in cases or ():
        if name not in THOROUGH:
            raise RequestError(unknown_name("thorough case", name, THOROUGH))
    return [row for name in cases or THOROUGH for row in THOROUGH[name](seed)]
