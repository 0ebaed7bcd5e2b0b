"""Pull: how hard the rewards pull at the first update beside the divergence, and the scale at which it would be 0.7."""

from __future__ import annotations

from collections.abc import Iterator

from ...diagnostics.first_pull import MOST, USUAL, FirstPull
from ...diagnostics.pull import pull_of, sides_of
from ..check import Check
from ..outcome import Outcome, judged, skipped
from ..subject import Subject


def run(subject: Subject) -> Iterator[Outcome]:
    """One row."""
    what = "rewards' gradient over the divergence's"
    if subject.first_step is None or subject.trial is None:
        yield skipped(what, "Needs an update: the check step.")
        return
    pull = pull_of(subject.first_step, sides_of(subject.trial.parts.engine.terms))
    if pull is None:
        yield skipped(what, "At the first update the rewards or the divergence have no gradient of their own.")
        return
    config = subject.trial.config
    asked = config.pull if config.measures_pull else None
    yield measured(what, pull["ratio"], pull["cosine"], 0.0 if config.measures_pull else config.alpha_rew, asked)


def measured(what: str, ratio: float, cosine: float, scale: float, asked: float | None = None) -> Outcome:
    """The row of a measured pull.

    Args:
        what: is compared.
        ratio: of the rewards' gradient to the divergence's.
        cosine: between them.
        scale: the settings' `reward_scale`; 0 where it is measured.
        asked: the pull that it is measured for.
    """
    numbers = {"pull": ratio, "cosine": cosine}
    said = f"{ratio:.3g}"
    why = "One side decides alone."
    if asked is not None:
        numbers |= {"asked": asked}
        said += f", where pull {asked:g} was asked for"
    if scale > 0 and ratio > 0:
        usual = FirstPull(ratio, scale).usual_scale
        numbers |= {"reward_scale": scale, "usual_scale": usual}
        said += f" at reward_scale {scale:g}; {usual:g} would make it {USUAL:g}"
        why += f" Set reward_scale={usual:g}."
    return judged(what, f"1/{MOST:g} to {MOST:g}", said, numbers, {"pull": (1 / MOST, MOST)}, why)


CHECK = Check("pull", 60, run, "the rewards' share in the first update")
