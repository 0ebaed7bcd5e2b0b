"""How a generator takes several steps, in the words of its settings, and of the record in an exported scheduler.

`dipp_toolkit.diffusion.deterministic_steps` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from ..errors import RequestError
from .messages import quoted

StepNoise = Literal["fresh", "none"]
LaidTimes = Literal["even", "stock"]
StepTimes = LaidTimes | tuple[float, ...]


@dataclass(frozen=True)
class Stepping:
    """How several steps are taken.

    Attributes:
        noise: between steps: `"fresh"`, or `"none"` for deterministic steps.
        times: `"even"`, `"stock"` for those that the generator's own scheduler lays, or one for each step, decreasing:
            timesteps of a variance preserving schedule, noise levels in (0, 1] of flow matching.
    """

    noise: StepNoise = "fresh"
    times: StepTimes = "even"

    @property
    def listed(self) -> tuple[float, ...] | None:
        """The times, where they are given one by one."""
        return None if isinstance(self.times, str) else self.times


USUAL = Stepping()
"""Fresh noise at even times."""


def check_listed(times: tuple[float, ...]) -> None:
    """Refuse times, given one by one, that no generator has.

    Raises:
        ValueError: they are not finite, positive and decreasing.
    """
    if not all(math.isfinite(time) and time > 0 for time in times):
        raise ValueError("expected positive, finite numbers")
    if any(later >= earlier for earlier, later in pairwise(times)):
        raise ValueError("expected each time to be smaller than the one before it, the noisiest first")


NOISE, TIMES = "_generator_noise", "_generator_times"
"""Where a scheduler's configuration holds how the steps of a generator are taken."""


def recorded_stepping(config: Mapping[str, Any]) -> Stepping:
    """What a scheduler's configuration records; `USUAL` where it records nothing.

    Raises:
        RequestError: what it records is neither noise nor times.
    """
    noise, times = config.get(NOISE, USUAL.noise), config.get(TIMES, USUAL.times)
    if noise not in get_args(StepNoise):
        raise RequestError(f"The scheduler's configuration has {NOISE}={quoted(noise)}; expected 'fresh' or 'none'.")
    if times in get_args(LaidTimes):
        return Stepping(noise, times)
    try:
        listed = tuple(float(time) for time in times) if isinstance(times, list | tuple) else ()
        check_listed(listed)
    except (TypeError, ValueError) as error:
        raise RequestError(f"The scheduler's configuration has {TIMES}={quoted(times)}: {error}.") from error
    if not listed:
        raise RequestError(
            f"The scheduler's configuration has {TIMES}={quoted(times)}; expected 'even', 'stock' or a list of numbers."
        )
    return Stepping(noise, listed)
