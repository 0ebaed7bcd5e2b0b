"""Every subject of the growth benchmark is measured at a tiny size."""

from __future__ import annotations

import math

import pytest

from benchmarks.growth.run import SUBJECTS, load

TINY = {"board": 2, "generating": 2, "many_images": 12, "set_metrics": 12}
"""Subjects that say all they have to at sizes far below their smallest."""


@pytest.mark.parametrize("subject", sorted(TINY))
def test_a_subject_is_measured(subject: str) -> None:
    module = load(subject)
    assert subject in SUBJECTS and len(module.SIZES) == 3
    numbers = module.measure(TINY[subject])
    assert numbers and all(math.isfinite(number) and number >= 0 for number in numbers.values())
