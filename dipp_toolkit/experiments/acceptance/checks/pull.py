"""Pull: how hard the rewards pull at the first update beside the divergence, and the scale at which it would be 0.7."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ....events import MOST, USUAL, FirstPull, plain
from ....monitoring.diagnostic import sides_of
from ....monitoring.diagnostics.pull import pull_of
from ..check import Check, Outcome, judged, skipped
from ..settings import public_term
from ..subject import Subject

WHAT = "rewards' gradient over the divergence's"
SCALE = "scale/"
"""Before a reward's term in the metrics: what its gradient is multiplied by, where that is measured."""


def run(subject: Subject) -> Iterator[Outcome]:
    """One row."""
    if subject.first_step is None or subject.trial is None:
        yield skipped(WHAT, "Needs an update: the check step.")
        return
    row, config = subject.first_step, subject.trial.config
    pull = pull_of(row, sides_of(subject.trial.parts.engine.terms))
    if pull is None:
        yield skipped(
            WHAT,
            "At the first update the rewards or the divergence have no gradient of their own; an assistant that has "
            "learnt gives the divergence one: --set assistant_warmup=200",
        )
        return
    if config.measures_pull:
        yield held(pull["ratio"], pull["cosine"], config.pull, row)
    else:
        yield scaled(pull["ratio"], pull["cosine"], config.alpha_rew)


def scaled(ratio: float, cosine: float, scale: float) -> Outcome:
    """The row of a pull that a number makes.

    Args:
        ratio: of the rewards' gradient to the divergence's.
        cosine: between them.
        scale: the settings' `reward_scale`.
    """
    usual = FirstPull(ratio, scale).usual_scale
    numbers = {"pull": ratio, "cosine": cosine, "reward_scale": scale, "usual_scale": usual}
    measured = f"{ratio:.3g} at reward_scale {scale:g}; {plain(usual)} would make it {USUAL:g}"
    return judged(WHAT, f"1/{MOST:g} to {MOST:g}", measured, numbers, {"pull": (1 / MOST, MOST)},
        f"One side decides alone. --set reward_scale={plain(usual)} would let both have a say.")  # fmt: skip


def held(ratio: float, cosine: float, target: float, row: Mapping[str, float]) -> Outcome:
    """The row of a pull that the scale was measured for.

    Args:
        ratio: as it came out.
        cosine: between rewards and divergence.
        target: the setting `pull`.
        row: the update's metrics.
    """
    scales = {public_term(name.removeprefix(SCALE)): value for name, value in row.items() if name.startswith(SCALE)}
    numbers = {"pull": ratio, "cosine": cosine, "asked": target}
    numbers |= {f"scale of {name}"[:200]: value for name, value in scales.items()}
    factors = ", ".join(f"{name.removeprefix('reward/')} times {value:.3g}" for name, value in scales.items())
    measured = f"{ratio:.3g}, with {factors or 'no reward'}"
    return judged(WHAT, f"{target:g} asked for; 1/{MOST:g} to {MOST:g}", measured, numbers, {"pull": (1 / MOST, MOST)},
        f"One side decides alone, though a pull of {target:g} was asked for.")  # fmt: skip


CHECK = Check("pull", 60, run, "the rewards' share in the first update")
