"""Checks of a reward: what would go wrong in a run, found before one is started.

Nothing is drawn from anybody's random numbers but a seeded source's, so that two checks of one reward say the same, the
measured speeds aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ...errors import DippError, RequestError
from ...protocols import GroupReward, Reward, moved
from ...utils.exception_text import raised
from ..groups import samples_per_prompt
from . import answers, costs, formats, gradients, side_effects, steadiness
from .beside import BesideCompanion
from .probe import Probe
from .verdicts import CheckRow, Verdict, failed, skipped

SMALLEST = 16
"""Pixels a side below which an ordinary picture has no room for its texture."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what its row is called.
        run: returns a verdict; what it raises is one too.
        needs: checks that must not have failed; else what this one saw would only be their fault again.
        gradient: whether it is for rewards with a gradient alone.
    """

    name: str
    run: Callable[[Probe], Verdict]
    needs: Sequence[str] = ("scores",)
    gradient: bool = False


ALONE = ("scores", "repeats", "own image alone", "differentiable")
"""What must hold before the gradient of one image's score can be looked at."""

CHECKS = (
    Check("scores", answers.check_scores, ()),
    Check("batch sizes", answers.check_batches),
    Check("image sizes", answers.check_sizes),
    Check("unusual images", answers.check_contents),
    Check("prompts", answers.check_prompts),
    Check("repeats", steadiness.check_repeats),
    Check("own image alone", steadiness.check_neighbours, ("scores", "batch sizes", "repeats")),
    Check("prompt matters", answers.check_prompt_matters, ("scores", "repeats")),
    Check("differentiable", gradients.check_declared),
    Check("gradient", gradients.check_gradient, ("scores", "unusual images", "differentiable"), gradient=True),
    Check("gradient is right", gradients.check_differences, (*ALONE, "gradient"), gradient=True),
    Check("gradient of own image", gradients.check_own_gradient, ALONE, gradient=True),
    Check("inputs unchanged", side_effects.check_inputs_unchanged),
    Check("global state", side_effects.check_global_state),
    Check("random numbers", side_effects.check_random_state),
    Check("memory layouts", formats.check_layouts, ("scores", "repeats")),
    Check("bfloat16", formats.check_bfloat16),
    Check("devices", formats.check_devices, ("scores", "repeats")),
    Check("speed", costs.check_speed),
    Check("memory", costs.check_memory),
    Check("parameters", costs.check_parameters, ()),
)


def check_reward(
    reward: Reward,
    name: str,
    *,
    device: torch.device | str = "cpu",
    size: int = 64,
    seed: int = 0,
    seconds: float = 0.5,
) -> list[CheckRow]:
    """Run every check of a reward.

    Args:
        reward: what is checked; moved to `device` where it can be. One of groups is asked about each image beside a
            fixed companion.
        name: its name, for the rows.
        device: where images are.
        size: pixels a side of ordinary pictures; other sizes are derived from it.
        seed: of pictures and directions.
        seconds: how long speed is measured, without and with gradients each.

    Returns:
        A row for each of `CHECKS`, in their order. Nothing is raised because of the reward: a check in which it raises
        has failed, and the others go on.

    Raises:
        RequestError: the size is too small.
    """
    if size < SMALLEST:
        raise RequestError(f"Pictures of {size} pixels a side are too small for a check; expected {SMALLEST} or more.")
    if samples_per_prompt(reward) > 1:
        reward = BesideCompanion(cast(GroupReward, moved(reward, device)))
    probe = Probe(name, reward, torch.device(device), size, seed, seconds)
    rows: list[CheckRow] = []
    with torch.random.fork_rng(devices=[]):  # so that a reward that draws at random gets the same numbers every time
        torch.default_generator.manual_seed(seed)
        for check in CHECKS:
            verdict = _verdict(check, probe, rows)
            rows.append(CheckRow(check.name, verdict.status, verdict.found, verdict.advice))
    return rows


def _verdict(check: Check, probe: Probe, rows: Sequence[CheckRow]) -> Verdict:
    broken = [row.name for row in rows if row.name in check.needs and row.status in ("failed", "skipped")]
    if check.gradient and probe.has_gradient is False:
        return skipped("It has no gradient.")
    if broken:
        return skipped(f"Needs the check '{broken[0]}' to hold first.")
    try:
        return check.run(probe)
    except Exception as error:  # noqa: BLE001 -- whatever a reward raises is what the check has found
        return failed(str(error) if isinstance(error, DippError) else f"It raised {raised(error)}.")
