"""Rows of numbers as a table of pandas, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .packages import missing_of


def as_table(rows: Sequence[Mapping[str, Any]], index: str | None = None) -> Any:
    """A `pandas.DataFrame` of the rows; a list of dictionaries where pandas is not installed.

    Args:
        rows: each by column.
        index: the column that names rows, in a frame.
    """
    if missing_of(["pandas"]):
        return [dict(row) for row in rows]
    from pandas import DataFrame

    frame = DataFrame([dict(row) for row in rows])
    return frame if index is None or frame.empty else frame.set_index(index)
