"""The trainings that `train()` makes, from settings to the folder of a run, and the law that each should end at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...objective.gaussians import Gaussian
from ..cases import optimum
from .closed_forms import objective_of
from .dmd_form import dmd_optimum
from .engines import Setting
from .processes import PROCESSES
from .world import curved_reward, linear_reward, upright_reward

DMD_CELLS = 200
"""Of the closed form's integral over a continuous process's times, where its optimum is searched."""


def at_the_target(setting: Setting) -> Gaussian:
    """Without a reward every weighting and law of times has one optimum: the reference under guidance."""
    return setting.target


def of_the_integral(setting: Setting) -> Gaussian:
    """Where the closed form's gradient is zero."""
    return optimum(objective_of(setting), setting.target)


def of_dmd(setting: Setting) -> Gaussian:
    """Where `dmd`'s is, in the upright world."""
    grid = setting.process.grid(setting.times, DMD_CELLS)
    return dmd_optimum(setting.target, grid, setting.reward, setting.reward_scale)


@dataclass(frozen=True)
class TrainCase:
    """A training through `train()`.

    Attributes:
        setting: the objective.
        optimum: the law that it should end at.
        learned: whether the assistant is the run's own, a copy of the reference that learns.
        steps: generator updates.
        rate: Adam's for the generator.
    """

    setting: Setting
    optimum: Callable[[Setting], Gaussian]
    learned: bool = False
    steps: int = 500
    rate: float = 0.02


def _upright() -> Setting:
    plain = Setting(PROCESSES["flow"], "dmd", upright=True)
    return replace(plain, reward=upright_reward(plain.target))


TRAIN_CASES = {
    "guided-dmd": TrainCase(Setting(PROCESSES["flow-shift-3"], "dmd", guidance=2.5), at_the_target),
    "curved-dmd": TrainCase(_upright(), of_dmd),
    "curved-logit-normal": TrainCase(
        Setting(PROCESSES["cosine"], "uniform", "logit-normal", reward=curved_reward()), of_the_integral
    ),
    "linear-snr": TrainCase(
        Setting(PROCESSES["zero-snr"], "snr", reward=linear_reward(), reward_scale=0.2), of_the_integral
    ),
    "learned-dmd": TrainCase(Setting(PROCESSES["sigmoid-betas"], "dmd", "logit-normal"), at_the_target, learned=True),
}
"""By name."""
