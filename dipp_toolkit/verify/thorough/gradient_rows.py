"""The rows that compare gradients: every process with every weighting and law of times, and with the other terms.

Guidance and a curved reward are in each, so that a mistake in any of them is seen in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...diffusion.predictions import Prediction
from ..rows import VerifyRow
from .closed_forms import expected_gradient
from .engines import Setting, gradient_of
from .processes import PROCESSES
from .world import curved_reward, linear_reward, trial_generator

CASE = "six-gradient"

TOLERANCE = 1e-3
"""Relative. All that is left to chance is where in its cell of the range each of the 2,000 times lies:
with seed 0 the largest of the rows' errors is 2.4e-4, and most are a hundredth of that."""

PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample", "velocity")


def settings() -> Iterator[Setting]:
    """What is compared."""
    guided = {"guidance": 2.5, "reward": curved_reward()}
    for process in PROCESSES.values():
        for weighting in ("uniform", "snr"):
            for times in ("uniform", "logit-normal"):
                yield Setting(process, weighting, times, **guided)  # type: ignore[arg-type]
        squared = {"distance": "squared"}
        yield Setting(process, "snr", "uniform", "score_divergence", squared, **guided)  # type: ignore[arg-type]
        yield Setting(process, "uniform", "logit-normal", "diffused_reward", guidance=2.5, reward=linear_reward())
    for prediction in PREDICTIONS:
        process = PROCESSES["flow-shift-3"]
        named = replace(process, name=f"{process.name} {prediction}", prediction=prediction)
        yield Setting(named, **guided)  # type: ignore[arg-type]


def gradient_row(setting: Setting, seed: int = 0) -> VerifyRow:
    """The gradient of a setting against its closed form."""
    generator = trial_generator(setting.target)
    expected, reached = expected_gradient(setting, generator), gradient_of(setting, generator, seed)
    return VerifyRow.compare(CASE, setting.label, "exact", "gradient", expected, reached, TOLERANCE)


def gradient_rows(seed: int = 0) -> list[VerifyRow]:
    """A row for each setting."""
    return [gradient_row(setting, seed) for setting in settings()]
