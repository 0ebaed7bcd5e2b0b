"""Colours of the diagnosed samples against those of the same prompts and noises at the first diagnosis.

The measures are those of `dipp_toolkit.evaluation.colour`. The monitors' over-saturation looks at the averaged
generator on held-out prompts and needs the reference's images; this one is cheap, and sees the weights as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...config import TrainConfig
from ...evaluation.colour import clipped_share, contrast, saturation
from ...events import Warned
from ..diagnostic import Diagnostic, Observation, Row, numbers
from ..over_saturation import MARGINS, WORDS

NAME = "saturated-samples"

SLACK = 2.0
"""Times the monitors' margins: weights that are not averaged move to and fro, and the samples are few. In the first
20 steps of the emoji world's recommended run nothing is above the start; with `reward_scale=1e5` and
`learning_rate=0.02` the saturation is 0.18 above it after 20."""


@torch.no_grad()
def measure(observation: Observation) -> Mapping[str, Any]:
    """`colours`: `saturation`, `contrast` and `clipped`, means over the samples, decoded."""
    rows = observation.probe.parts()
    images = torch.cat([observation.reference.decode(observation.x0[part]).cpu() for part in rows])
    measures = {"saturation": saturation(images), "contrast": contrast(images), "clipped": clipped_share(images)}
    return {"colours": {name: values.double().mean().item() for name, values in measures.items()}}


def has_generator(config: TrainConfig) -> bool:
    """Whether the run starts from a generator: one that starts from the reference's own network starts blurred."""
    return config.generator is not None


def warn(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None; what the colours are now counts, not what they were."""
    parts = []
    for name, margin in MARGINS.items():
        points = numbers(rows, "colours", name)
        if points and points[-1][1] - points[0][1] > SLACK * margin:
            parts.append(f"the mean {WORDS[name]} rose from {points[0][1]:.2f} to {points[-1][1]:.2f}")
    if not parts:
        return None
    return Warned(
        name=NAME,
        text=f"On training samples {' and '.join(parts)} since step {rows[0]['step']}: colours are driven too far. "
        "Lower reward_scale or guidance.",
    )


DIAGNOSTICS = (
    Diagnostic(
        name=NAME,
        title="Colours of training samples",
        reading=(
            "Mean saturation, contrast (standard deviation of luma) and share of pixels at an end of the range, of "
            "training prompts with the same noises each time, by the weights as they are trained."
        ),
        healthy=(
            "Flat: no more above the first diagnosis than "
            + ", ".join(f"{SLACK * margin:g} ({WORDS[name]})" for name, margin in MARGINS.items())
            + ". A distillation that starts from the reference's own network, whose images are blurred, may rise."
        ),
        paths={word: ("colours", name) for name, word in WORDS.items()},
        measure=measure,
        warn=warn,
        applies=has_generator,
        about_images=True,
    ),
)
