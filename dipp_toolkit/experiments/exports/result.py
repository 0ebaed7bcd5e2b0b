"""What an export wrote, and what came of reading it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST = 1e-4
"""Largest difference of a pixel in [0, 1] between the run's generator and plain diffusers with float32 exports."""


@dataclass(frozen=True)
class Check:
    """A round trip: the same noise through what was read back, and through the run's own generator.

    Attributes:
        how: by what it was read, in words.
        difference: the largest of a pixel in [0, 1]; None where it could not be done.
        limit: what it may be; None where the export is no exact one, by its precision or its rank.
        reason: why it could not be done.
    """

    how: str
    difference: float | None = None
    limit: float | None = None
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether it differs by more than it may; a number that is none is more."""
        return self.difference is not None and self.limit is not None and not self.difference <= self.limit

    @property
    def text(self) -> str:
        """As a sentence."""
        if self.difference is None:
            return f"Not checked: {self.reason}"
        text = f"{self.how}: largest difference {self.difference:.1g} of a pixel"
        if self.limit is None:
            return f"{text}."
        return f"{text}, {'more than' if self.failed else 'of at most'} {self.limit:g}."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "how": self.how,
            "difference": self.difference,
            "limit": self.limit,
            "reason": self.reason,
            "passed": None if self.difference is None or self.limit is None else not self.failed,
        }


@dataclass(frozen=True)
class Export:
    """Files that were written.

    Attributes:
        files: each with what it is.
        notes: sentences about them: what they keep, what whoever loads them brings.
        check: the round trip; None where it was not asked for.
        numbers: more about them, for JSON.
    """

    files: dict[Path, str]
    notes: list[str] = field(default_factory=list)
    check: Check | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "files": {str(path): what for path, what in self.files.items()},
            "notes": self.notes,
            "check": None if self.check is None else self.check.as_dict(),
            **self.numbers,
        }
