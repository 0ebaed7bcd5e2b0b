r"""How far the generator's law is from the reference's, in nats, by time and on average over times.

$$D_{IKL} = \frac1T \sum_{k=1}^{T} KL(p_{t_k} \| q_{t_k}), \qquad w(t) = 1,$$

over the middles $t_k$ of T equal bins of the run's time range, by `kl_by_time`: p as the assistant sees it, q the
reference under the run's guidance. What the assistant does not know yet of the generator is missing from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...events import Warned
from ..denoised import kl_by_time
from ..diagnostic import Diagnostic, Line, Observation, Row, numbers, short_text

NAME = "far-from-reference"

MOST = 0.5
"""Nats a dimension. Two standard normal laws that lie a whole deviation apart in every single dimension are this far.

The emoji world's recommended run is between 0.02 and 0.03 in its first 20 steps; with `reward_scale=1e5` and
`learning_rate=0.02` it is at 1.9 after 10 and at 20 after 20."""


def measure(observation: Observation) -> Mapping[str, Any]:
    """`divergence`: nats of a sample and of each of its dimensions, and nats at each time."""
    if observation.denoised is None:
        return {}
    probe = observation.probe
    by_time = kl_by_time(probe.by_bin(observation.denoised.gap), observation.reference.denoiser.schedule, probe.times)
    nats = by_time.mean().item()
    return {
        "divergence": {
            "nats": nats,
            "per_dimension": nats / probe.z[0].numel(),
            "times": probe.times.tolist(),
            "by_time": by_time.tolist(),
        }
    }


def warn(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None; what the distance is now counts, not what it was."""
    points = numbers(rows, "divergence", "per_dimension")
    if not points or points[-1][1] <= MOST:
        return None
    step, value = points[-1]
    start = f", from {points[0][1]:.3g} at step {points[0][0]}" if len(points) > 1 else ""
    return Warned(
        name=NAME,
        text=f"At step {step} the generator was {value:.3g} nats a dimension away from the reference{start}; more than "
        f"{MOST:g} means that its images have little in common with the reference's. Lower reward_scale or "
        "learning_rate.",
    )


def lines_by_time(rows: Sequence[Row]) -> Sequence[Line]:
    """KL at each time, in the first diagnosis and in the last."""
    lines = []
    for row in rows:
        divergence = row.get("divergence")
        if not isinstance(divergence, Mapping):
            continue
        times, values = (divergence.get(name) for name in ("times", "by_time"))
        if not isinstance(times, list) or not isinstance(values, list):
            continue
        numeric = all(isinstance(value, (int, float)) and math.isfinite(value) for value in [*times, *values])
        if times and len(times) == len(values) and numeric:
            lines.append(Line(f"step {row['step']}", [float(time) for time in times], [float(kl) for kl in values]))
    return [lines[0], lines[-1]] if len(lines) > 1 else lines


def ends_by_time(lines: Sequence[Line]) -> str:
    """The KL of the last diagnosis at the earliest time and at the latest."""
    last = lines[-1]
    return ", ".join(f"{short_text(last.values[at])} nats at time {last.places[at]:.2g}" for at in (0, -1)) + "."


DIAGNOSTICS = (
    Diagnostic(
        name=NAME,
        title="Distance to the reference",
        reading=(
            "KL divergence between noised samples of the generator and of the reference (under the run's guidance), as "
            "assistant and reference see them, in nats for each dimension of a sample; an average over times, so an "
            "estimate of the integral KL with a weight of 1. KL grows towards clean times, where the finest details "
            "count."
        ),
        healthy=(
            f"Levels off, below {MOST:g}. While rewards pull it rises at first; in a distillation it falls, once the "
            "assistant, which begins as the reference, has learnt the generator."
        ),
        paths={"distance": ("divergence", "per_dimension")},
        measure=measure,
        warn=warn,
        about_images=True,
        absence=(
            "The assistant was not trained in this run, because no term looks at it or assistant_rounds is 0: there is "
            "no distance to the reference and no lag to show."
        ),
        include=(0.0,),
    ),
    Diagnostic(
        title="Distance by time",
        reading=(
            "KL divergence in nats between generator and reference after noise has been added up to each time, 0 the "
            "clean image and 1 the noisiest: right of the middle is what images show at large, at the left their "
            "details."
        ),
        healthy=(
            "The line keeps its shape while it rises or falls. Where only the right end rises, the generator shows "
            "something else than the reference; where only the left does, it draws the same differently."
        ),
        log=True,
        axis="time",
        lines_of=lines_by_time,
        now_of=ends_by_time,
    ),
)
