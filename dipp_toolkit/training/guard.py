r"""Bad numbers: which updates are skipped, when a run gives up, and the record of skips in `skipped.jsonl`.

An update whose gradient is not finite, or whose norm is `spike` times the usual one, is skipped: no weight, no
optimiser state and no average moves. The usual norm is the exponential mean of the logarithm of the norms of the
updates that were made. After `patience` steps in a row with a skipped update the run stops, on weights that no bad
number has touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..utils.jsonl import MetricsFile, read_step_rows

DECAY = 0.9
LEAST = 10
"""Updates after which a norm is known well enough to call another one a spike."""


@dataclass
class UsualNorm:
    """Running mean of the logarithm of a gradient's norm.

    Attributes:
        mean: of the logarithm, natural.
        updates: norms seen.
    """

    mean: float = 0.0
    updates: int = 0

    def note(self, norm: float) -> None:
        """Include a norm; 0 is left out, as it says nothing of the size of others."""
        if norm <= 0:
            return
        self.updates += 1
        share = (1 - DECAY) / (1 - DECAY**self.updates)
        self.mean += share * (math.log(norm) - self.mean)

    @property
    def value(self) -> float | None:
        """The usual norm; None until enough have been seen."""
        return math.exp(self.mean) if self.updates >= LEAST else None


@dataclass
class Guard:
    """Decides whether each update of a run is made, the assistant's and the generator's.

    Attributes:
        spike: an update whose gradient has this many times its usual norm is skipped.
        patience: consecutive steps with a skipped update after which the run stops.
        norms: usual norms by network.
        in_a_row: consecutive steps up to now with a skipped update.
        skipped: updates skipped since the run began.
        reasons: of the step under way.
    """

    spike: float = 1000.0
    patience: int = 5
    norms: dict[str, UsualNorm] = field(default_factory=dict)
    in_a_row: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)

    def spiked(self, network: str, norm: float) -> str:
        """Why an update with a finite gradient of this norm has to be skipped; empty where it does not.

        Args:
            network: whose gradient, `"generator"` or `"assistant"`.
            norm: before clipping.
        """
        usual = self.norms.setdefault(network, UsualNorm())
        if usual.value is not None and norm > self.spike * usual.value:
            return (
                f"the {network}'s gradient has the norm {norm:.3g}, {norm / usual.value:.0f} times the usual "
                f"{usual.value:.3g}"
            )
        usual.note(norm)
        return ""

    def skip(self, reason: str) -> None:
        """An update of the step under way is not made."""
        self.skipped += 1
        self.reasons.append(reason)

    def end_step(self, step: int, steps: str = "steps") -> list[str]:
        """The step is over; returns why its updates were skipped, each reason once.

        Args:
            step: its number, from 1.
            steps: what is counted, in words.

        Raises:
            RunError: too many steps in a row had one.
        """
        reasons, self.reasons = list(dict.fromkeys(self.reasons)), []
        self.in_a_row = self.in_a_row + 1 if reasons else 0
        if self.in_a_row >= self.patience:
            first = step - self.in_a_row + 1
            raise RunError(
                f"Bad numbers in {self.in_a_row} {steps} in a row, {first} to {step}: {'; '.join(reasons)}. None of "
                "these updates was made; the weights are as before."
            )
        return reasons

    def state_dict(self) -> dict[str, Any]:
        return {
            "norms": {name: dict(vars(norm)) for name, norm in self.norms.items()},
            "in_a_row": self.in_a_row,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.norms = {name: UsualNorm(**norm) for name, norm in state.get("norms", {}).items()}
        self.skipped, self.in_a_row, self.reasons = state.get("skipped", 0), state.get("in_a_row", 0), []


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
    rows = read_step_rows(path)
    if not rows:
        return []
    reasons = rows[0].get("reasons")
    steps = f"{len(rows)} step{'s' * (len(rows) > 1)}"
    return [
        f"Bad numbers came up in {steps}, whose updates were skipped; the first was step {rows[0]['step']}: "
        f"{'; '.join(map(str, reasons)) if isinstance(reasons, list) else 'not recorded'}."
    ]
