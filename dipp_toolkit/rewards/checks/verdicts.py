"""What a check says: a status, what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


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


def ok(found: str) -> Verdict:
    """All is well."""
    return Verdict("ok", found)


def warning(found: str, advice: str = "") -> Verdict:
    """Somebody should look."""
    return Verdict("warning", found, advice)


def failed(found: str, advice: str = "") -> Verdict:
    """The reward is broken in this."""
    return Verdict("failed", found, advice)


def skipped(found: str) -> Verdict:
    """Nothing can be said, and why."""
    return Verdict("skipped", found)
