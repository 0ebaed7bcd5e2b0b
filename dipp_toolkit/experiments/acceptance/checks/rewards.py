"""Rewards: each one's scores of fixed images against golden numbers, where its plugin has some for these weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ....errors import DippError
from ....protocols import close, moved
from ....rewards.loading import find_reward
from ....rewards.scores import as_scores
from ....utils.exception_text import raised
from ..check import Check, Outcome, failed, judged, skipped
from ..golden import NAME, PROMPTS, Golden, golden_images, golden_of, weights_key
from ..settings import public_name
from ..subject import Scored, Subject
from ..weights_used import reward_files

SHOWN = 4
"""Scores that a row of the table names."""


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for each reward that is trained on, and for the judge."""
    if not subject.reward_names:
        yield skipped("scores", "No reward is named.")
    for name in subject.reward_names:
        what = f"scores of {public_name(name)}"
        if name in subject.unusable:
            yield skipped(what, "Its files are not here: see fetch.")
            continue
        try:
            yield _of_reward(subject, name, what)
        except Exception as error:  # noqa: BLE001 -- a reward may raise anything, and the others are still looked at
            subject.unusable[name] = str(error) if isinstance(error, DippError) else f"It raised {raised(error)}."
            yield failed(what, subject.unusable[name])
        subject.free()


def _of_reward(subject: Subject, name: str, what: str) -> Outcome:
    options = subject.config.options_of(name)
    make = find_reward(name, **options)
    reward: Any = make()
    try:
        scores = _scores(reward, name, subject.device)
    finally:
        close(reward)
    files = reward_files(f"reward {public_name(name)}", make, options)
    key, version = weights_key(reward, files or ()), str(getattr(reward, "version", ""))
    subject.scores[name] = Scored(tuple(float(f"{score:.6g}") for score in scores.tolist()), key, version)
    return _compared(what, scores, key, version, golden_of(name))


@torch.no_grad()
def _scores(reward: Any, name: str, device: torch.device) -> Tensor:
    moved(reward, device)
    images = golden_images().to(device)
    return as_scores(name, reward(images, list(PROMPTS)), len(images)).double().cpu()


def _compared(what: str, scores: Tensor, key: str, version: str, goldens: list[Golden]) -> Outcome:
    measured = ", ".join(f"{score:.4g}" for score in scores[:SHOWN].tolist()) + ", ..."
    numbers = {f"score {number}": float(score) for number, score in enumerate(scores.tolist(), 1)}
    of_version = [golden for golden in goldens if golden.version == version]
    golden = next((entry for entry in of_version if entry.weights == key), None)
    if golden is not None:
        expected = torch.tensor(golden.scores, dtype=torch.float64)
        if expected.shape != scores.shape:
            return failed(what, f"The golden numbers are {len(expected)}, for {len(scores)} images.")
        difference = float((scores - expected).abs().max())
        why = "The same weights gave other scores where they were recorded: the code or a library reads them otherwise."
        return judged(
            what,
            f"golden numbers to {golden.tolerance:g} ({golden.origin})",
            f"off by {difference:.2g} at most",
            numbers | {"difference": difference},
            {"difference": (0.0, golden.tolerance)},
            why,
        )
    if of_version:
        stale = of_version[0]
        why = (
            f"stale: the golden numbers are of the weights {_short(stale.weights)} ({stale.origin}), and these are "
            f"{_short(key)}. Either the weights are not the published ones, or the numbers have to be recorded again."
        )
        return Outcome(what, f"golden numbers of {_short(stale.weights)}", measured, "fail", why, numbers)
    why = (
        f"none known of the images {NAME}: nobody has recorded what these weights give. --record-golden FILE writes "
        "what was measured here."
    )
    return Outcome(what, "golden numbers", measured, "skipped", why, numbers)


def _short(key: str) -> str:
    return key.removeprefix("state-")[:12]


CHECK = Check("rewards", 40, run, "scores of fixed images are the golden numbers")
