r"""The rows of the weighting `dmd`, the default: what holds of it in the turned world, and its closed form upright.

`dmd_form` derives all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...objective.gaussians import Gaussian
from ..rows import VerifyRow
from ..world import AffineGenerator, AffineMap
from .dmd_form import dmd_gradient, reward_gradient
from .engines import Setting, gradient_of
from .processes import LAWS, PROCESSES, Process
from .world import SHAPE, square_root, trial_generator, upright_reward

CASE = "six-dmd"

GRADIENT = 5e-3
"""Of the upright world's gradients: its noises are spread points and no exact ones."""

EXACT = 1e-4
"""Of what holds for every sample, or for every pair of opposite noises."""

CELLS = 400
"""Of the closed form's integral over a continuous process's times."""


def upright_settings() -> Iterator[Setting]:
    """Every process and law of times, with guidance and a reward."""
    for process in PROCESSES.values():
        for times in LAWS:
            plain = Setting(process, "dmd", times, guidance=2.5, upright=True)
            yield replace(plain, reward=upright_reward(plain.target))


def upright_row(setting: Setting, seed: int = 0) -> VerifyRow:
    """The gradient against its closed form, where the axes are along the numbers."""
    generator = trial_generator(setting.target, upright=True)
    deviations, bias = generator.network.matrix.detach().diagonal(), generator.network.bias.detach()
    form = dmd_gradient(deviations, bias, setting.target, setting.process.grid(setting.times, CELLS))
    expected = torch.cat([form.bias[None], form.matrix])
    if setting.reward is not None:
        explicit = reward_gradient(setting.reward, setting.reward_scale, deviations, bias)
        expected = expected + torch.cat([explicit.bias[None], explicit.matrix])
    reached = gradient_of(setting, generator, seed)
    label = f"{setting.label} upright"
    return VerifyRow.compare(CASE, label, "exact", "gradient", expected, reached, GRADIENT)


def turned_rows(process: Process, seed: int = 0) -> list[VerifyRow]:
    """What holds in the turned world: at the target, with a wrong mean alone, and with a wrong covariance alone."""
    setting = Setting(process, "dmd", guidance=2.5)
    target, away = setting.target, trial_generator(setting.target)
    root = square_root(target.covariance)
    size = gradient_of(setting, away, seed).norm().item()
    rows = []

    def row(quantity: str, expected: Tensor, reached: Tensor, scale: float = 0.0) -> None:
        rows.append(VerifyRow.compare(CASE, setting.label, "exact", quantity, expected, reached, EXACT, scale))

    found = gradient_of(setting, _at(target.mean, root), seed)
    row("gradient at the target", torch.zeros_like(found), found, size)
    mean_only = _at(away.network.bias.detach(), root)
    one_time = replace(setting, process=replace(process, times=(0.5, 0.5 + 1e-6)))
    pulled = gradient_of(one_time, mean_only, seed)[0]
    row("direction of the mean's pull", _direction(one_time, target, mean_only), pulled / pulled.norm())
    found = gradient_of(setting, _at(target.mean, away.network.matrix.detach()), seed)
    row("mean's pull by the covariance", torch.zeros_like(found[0]), found[0], found[1:].norm().item())
    return rows


def _at(mean: Tensor, matrix: Tensor) -> AffineGenerator:
    return AffineGenerator(AffineMap(matrix.clone(), mean.clone()), SHAPE)


def _direction(setting: Setting, target: Gaussian, generator: AffineGenerator) -> Tensor:
    r"""$C_t^{-1} (b - \mu)$ of length 1, at the one time of a setting."""
    grid = setting.process.grid(setting.times, 1)
    (covariance,) = target.noised_covariance(grid.alpha, grid.sigma)
    pull = torch.linalg.solve(covariance, generator.law.mean - target.mean)
    return pull / pull.norm()


def dmd_rows(seed: int = 0) -> list[VerifyRow]:
    """All of them."""
    rows = [upright_row(setting, seed) for setting in upright_settings()]
    for process in PROCESSES.values():
        rows += turned_rows(process, seed)
    return rows
