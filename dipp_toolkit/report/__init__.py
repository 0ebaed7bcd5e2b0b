"""The report of a run: one HTML file and one picture, built from the files in the run folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name != "write_report":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from .write import write_report

    return write_report
