r"""How far the generator's law is from the reference's, in nats, by time and on average over times.

$$D_{IKL} = \frac1T \sum_{k=1}^{T} KL(p_{t_k} \| q_{t_k}), \qquad w(t) = 1,$$

over the middles $t_k$ of T equal bins of the run's time range, by `kl_by_time`: p as the assistant sees it, q the
reference under the run's guidance. What the assistant does not know yet of the generator is missing from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..events import Warned
from .diagnostic_names import FAR
from .ranges import Row, numbers

MOST = 0.5
"""Nats a dimension. Two standard normal laws that lie a whole deviation apart in every single dimension are this far.

The emoji world's recommended run is between 0.02 and 0.03 in its first 20 steps; with `reward_scale=1e5` and
`learning_rate=0.02` it is at 1.9 after 10 and at 20 after 20."""

READING = (
    "KL divergence between noised samples of the generator and of the reference (under the run's guidance), as "
    "assistant and reference see them, in nats for each dimension of a sample; an average over times, so an estimate "
    "of the integral KL with a weight of 1. KL grows towards clean times, where the finest details count."
)
HEALTHY = (
    f"Levels off, below {MOST:g}. While rewards pull it rises at first; in a distillation it falls, once the "
    "assistant, which begins as the reference, has learnt the generator."
)


def warning(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None; what it is now counts, not what it was."""
    found = numbers(rows, "divergence", "per_dimension")
    if not found or found[-1][1] <= MOST:
        return None
    step, value = found[-1]
    start = f", from {found[0][1]:.3g} at step {found[0][0]}" if len(found) > 1 else ""
    return Warned(
        name=FAR,
        text=f"At step {step} the generator was {value:.3g} nats a dimension away from the reference{start}; more than "
        f"{MOST:g} means that its images have little in common with the reference's. Lower reward_scale or "
        "learning_rate.",
    )
