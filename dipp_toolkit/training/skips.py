"""`skipped.jsonl`: the steps with an update that was not made, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..utils.jsonl import MetricsFile, whole_rows


class FileOfSkips:
    """`skipped.jsonl`, a line for each step with a skipped update; there is none in a run without bad numbers.

    Args:
        path: the file.
        step: lines of later steps are dropped first, so that a resumed run writes them anew.
    """

    def __init__(self, path: Path, step: int):
        self._path, self._step = path, step
        self._lines = MetricsFile(path, step) if path.is_file() else None

    def note(self, step: int, reasons: Sequence[str]) -> None:
        """Write a line, where there is a reason."""
        if not reasons:
            return
        if self._lines is None:
            self._lines = MetricsFile(self._path, self._step)
        self._lines.write({"step": step, "reasons": list(reasons)})

    def sync(self) -> None:
        """Make all lines so far durable."""
        if self._lines is not None:
            self._lines.sync()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._lines is not None:
            self._lines.close()


def skip_warning(path: Path) -> list[str]:
    """What the summary says of skipped updates: a sentence, or none where every update was made."""
    rows = whole_rows(path)
    if not rows:
        return []
    steps = f"{len(rows)} step{'s' * (len(rows) > 1)}"
    return [
        f"Bad numbers came up in {steps}, whose updates were skipped; the first was step {rows[0]['step']}: "
        f"{'; '.join(rows[0]['reasons'])}."
    ]
