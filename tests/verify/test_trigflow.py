"""The engine under TrigFlow: its gradient is that of the closed form, with the circle written here a second time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from dipp_toolkit.verify.gaussian_network import Coefficients, coefficients_of
from dipp_toolkit.verify.thorough import engines
from dipp_toolkit.verify.thorough.engines import Setting
from dipp_toolkit.verify.thorough.gradient_rows import gradient_row
from dipp_toolkit.verify.thorough.processes import CELLS, LAWS, Grid, Process
from dipp_toolkit.verify.thorough.world import curved_reward


@dataclass(frozen=True)
class Circle(Process):
    @property
    def network(self) -> Coefficients:
        return lambda angle: (angle.cos(), angle.sin())

    def grid(self, law: str, cells: int = CELLS) -> Grid:
        low, high = self.times
        edges = torch.linspace(low, high, cells + 1, dtype=torch.float64)
        angle = math.pi / 4 * (edges[1:] + edges[:-1])
        below = LAWS[law]((edges - low) / (high - low))
        return Grid(angle.cos(), angle.sin(), below[1:] - below[:-1])


def test_the_gradient_is_that_of_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TIMES", 500)
    monkeypatch.setattr(engines, "PAIRS", 2**13)
    process = Circle("trigflow", {"_class_name": "SCMScheduler", "sigma_data": 0.5}, "v_prediction")
    row = gradient_row(Setting(process, "uniform", "uniform", guidance=2.5, reward=curved_reward()))
    assert row.passed, row.error
    t = torch.linspace(0.02, 0.98, 5, dtype=torch.float64)
    for ours, theirs in zip(
        coefficients_of(process.schedule)(process.schedule.network_time(t)),
        process.network(math.pi / 2 * t),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
