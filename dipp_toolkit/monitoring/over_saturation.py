r"""Over-saturation: colours or contrast are driven beyond those of the reference and of the start.

With $v$ the mean saturation, contrast or clipped share of a prompt's images, the warning is raised where the lower end
of the 95 % paired interval of $v^{now} - v^{base}$ lies above that quantity's margin, for every base there
is: the reference's own images of the same prompts, and the start. A start that was oversaturated already is not held
against the training.
"""

from __future__ import annotations

from ..config import OVER_SATURATION as NAME
from ..evaluation.intervals import paired_interval
from ..events import Warned
from .snapshot import Snapshot

MARGINS = {"saturation": 0.05, "contrast": 0.03, "clipped": 0.1}
"""Most that each may exceed the base by; all three lie in [0, 1].

The emoji world's recommended run moves the first two down and the third up, by 0.09 after 10 of its 40 updates and 0.06
at its end: its drawings become flat and bright where the start's were ragged (docs/reference/warnings.md)."""
WORDS = {"saturation": "saturation", "contrast": "contrast", "clipped": "share of clipped pixels"}


def over_saturation(now: Snapshot, start: Snapshot, reference: Snapshot | None = None) -> Warned | None:
    """The warning, or None.

    Args:
        now: the generator in question.
        start: what its training started from.
        reference: the multi-step reference's own images, where there are some.
    """
    bases = {"the start's": start} | ({"the reference's": reference} if reference is not None else {})
    parts = []
    for quantity, margin in MARGINS.items():
        changes = {
            whose: paired_interval(getattr(base, quantity), getattr(now, quantity)) for whose, base in bases.items()
        }
        if all(change.low > margin for change in changes.values()):
            by = " and ".join(f"{change.mean:.3f} above {whose}" for whose, change in changes.items())
            parts.append(f"{WORDS[quantity]} is {by}")
    if not parts:
        return None
    return Warned(
        name=NAME,
        text=f"The mean {', the mean '.join(parts)}: colours are driven too far. Lower reward_scale or guidance.",
    )
