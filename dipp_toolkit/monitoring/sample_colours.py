"""Colours of the diagnosed samples against those of the same prompts and noises at the first diagnosis.

The measures are those of `dipp_toolkit.evaluation.colour`. The monitors' over-saturation looks at the averaged
generator on held-out prompts and needs the reference's images; this one is cheap, and sees the weights as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..evaluation.colour import clipped_share, contrast, saturation
from ..events import Warned
from ..protocols import Reference
from .diagnostic_names import COLOUR
from .over_saturation import MARGINS, WORDS
from .probe import Probe
from .ranges import Row, numbers

SLACK = 2.0
"""Times the monitors' margins: weights that are not averaged move to and fro, and the samples are few. In the first
20 steps of the emoji world's recommended run nothing is above the start; with `reward_scale=1e5` and
`learning_rate=0.02` the saturation is 0.18 above it after 20."""

READING = (
    "Mean saturation, contrast (standard deviation of luma) and share of pixels at an end of the range, of training "
    "prompts with the same noises each time, by the weights as they are trained."
)
HEALTHY = (
    "Flat: no more above the first diagnosis than "
    + ", ".join(f"{SLACK * margin:g} ({WORDS[name]})" for name, margin in MARGINS.items())
    + ". A distillation that starts from the reference's own network, whose images are blurred, may rise."
)


@torch.no_grad()
def colours(probe: Probe, reference: Reference, x0: Float[Tensor, "rows ..."]) -> dict[str, float]:
    """Means over the samples, decoded: `saturation`, `contrast` and `clipped`."""
    images = torch.cat([reference.decode(x0[rows]).cpu() for rows in probe.parts()])
    found = {"saturation": saturation(images), "contrast": contrast(images), "clipped": clipped_share(images)}
    return {name: values.double().mean().item() for name, values in found.items()}


def warning(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None; what the colours are now counts, not what they were."""
    parts = []
    for name, margin in MARGINS.items():
        found = numbers(rows, "colours", name)
        if found and found[-1][1] - found[0][1] > SLACK * margin:
            parts.append(f"the mean {WORDS[name]} rose from {found[0][1]:.2f} to {found[-1][1]:.2f}")
    if not parts:
        return None
    return Warned(
        name=COLOUR,
        text=f"On training samples {' and '.join(parts)} since step {rows[0]['step']}: colours are driven too far. "
        "Lower reward_scale or guidance.",
    )
