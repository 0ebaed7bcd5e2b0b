"""Align: a short alignment; rewards and judge before and after, with intervals over the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....evaluation.comparison import Comparison, measure
from ....training.finishing import one_step_images
from ..check import FAR, Check, Outcome, Verdict, failed, skipped
from ..settings import public_name
from ..subject import Subject

KEPT = 0.1
"""Share of the time left that the images after it and their scores may take."""
TOLD = (
    "steps", "batch_size", "mode", "learning_rate", "assistant_learning_rate", "guidance", "reward_scale", "precision",
    "frozen_precision", "seed",
)  # fmt: skip


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for the run, one for each reward that is trained on, and one for the judge."""
    loop, what = subject.trial, "short alignment"
    if loop is None or subject.before is None:
        yield skipped(what, "Needs an update: the check step.")
        return
    config, parts = loop.config, loop.parts
    until = subject.deadline - KEPT * max(0.0, subject.deadline - subject.clock())
    skips = 0
    while loop.step < config.steps and subject.clock() < until:
        loop.one_step()
        skips += bool(loop.skipped)
    settings = ", ".join(f"{name} {getattr(config, name)}" for name in TOLD)
    progress = f"{loop.step} of {config.steps} updates in {loop.seconds:.0f} s"
    numbers = {"updates": float(loop.step), "seconds": loop.seconds, "skipped": float(skips)}
    if skips > loop.step / 2:
        yield failed(
            what, f"{skips} updates were not followed: their numbers were not finite, or spikes.", settings, progress
        )
    else:
        yield Outcome(what, settings, progress, "pass", "", numbers)
    if not parts.rewards and parts.judge is None:
        yield skipped("rewards", "No reward can be used.")
        return
    with parts.average.applied():
        after = one_step_images(parts, parts.generator, config)
    prompts = list(parts.eval_conditions.prompts)
    comparison = Comparison(prompts, list(range(config.eval_seeds)), {"before": subject.before, "after": after})
    columns_of = measure(comparison, parts.rewards, parts.judge, device=subject.device)
    trained = {*config.rewards}
    for name in (*parts.rewards, *([parts.judge[0]] if parts.judge else [])):
        columns = columns_of["judge"] if parts.judge and name == parts.judge[0] else columns_of["rewards"][name]
        yield _risen(name, columns, columns_of["gain"][name], name in trained)


def _risen(name: str, columns: Any, gain: Any, trained: bool) -> Outcome:
    before, after = columns["before"], columns["after"]
    verdict: Verdict = "pass" if gain["low"] > 0 else "fail" if gain["high"] < 0 and trained else "not seen"
    why = {
        "pass": "",
        "fail": "The reward that was trained on fell: its gradient does not lead where its scores do.",
        "not seen": "Its interval holds 0: so few updates did not show a rise. More of them: --set steps=300",
    }[verdict]
    if verdict == "not seen" and gain["high"] < 0:
        why = "It fell, and was not trained on."
    numbers = {"before": before["mean"], "after": after["mean"], "gain": gain["mean"], "low": gain["low"],
        "high": gain["high"]}  # fmt: skip
    means = f"{before['mean']:.4g} to {after['mean']:.4g}, {gain['mean']:+.3g} [{gain['low']:.3g}, {gain['high']:.3g}]"
    role = "trained on" if trained else "judge or watched"
    bounds = {"low": (0.0, FAR)} if verdict == "pass" else {}
    return Outcome(f"{public_name(name)} ({role})", "a gain above 0, 95 % interval over prompts", means, verdict, why,
        numbers, bounds)  # fmt: skip


CHECK = Check("align", 70, run, "a short alignment raises what it trains on")
