"""How hard the rewards pull in a run's first updates, reported before time is spent on a scale that changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ..config import TrainConfig
from ..events import FirstPull, healthy
from ..objective.mixing.scale import MEASURED
from ..objective.result import metric_name, reward_term


def pull_at(row: Mapping[str, float]) -> float | None:
    """The pull at a step without what a `scale_schedule` makes of it; None where nothing pulls."""
    factor = row.get("scale_factor", 1.0)
    return row["pull"] / factor if "pull" in row and factor else None


def of_step(row: Mapping[str, float], config: TrainConfig) -> FirstPull | None:
    """The pull in a step's metrics; None where there is nothing to report."""
    if not (config.rewards or config.floors) or config.reward_scale == 0 or row.get("scale_factor") == 0:
        return None
    ratio = pull_at(row)
    if config.measures_pull:
        return FirstPull(ratio, None, config.pull)
    return FirstPull(ratio, config.alpha_rew) if ratio is not None else None


@dataclass
class FirstPulls:
    """Reports how hard the rewards pull at the first update; warns once in the next where one side decides alone.

    Attributes:
        config: the run's settings.
        warned: whether it has warned.
    """

    config: TrainConfig
    warned: bool = False

    def check(self, step: int, row: Mapping[str, float]) -> FirstPull | None:
        """What to say after an update; None where there is nothing.

        Args:
            step: the update's number, from 1.
            row: its metrics.
        """
        if step > MEASURED or "skipped" in row:
            return None
        pull = of_step(row, self.config)
        if pull is None or pull.healthy:
            return pull if step == 1 else None
        if pull.ratio is None and step not in (1, MEASURED):
            return None
        if self.warned:
            return None
        self.warned = pull.ratio is not None
        return pull


def first_rows(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The first updates that have a pull."""
    return [row for row in rows if pull_at(row) is not None][:MEASURED]


def first_warning(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> str:
    """What is wrong with the pull of a run's first updates, as a sentence; empty where nothing is.

    Args:
        rows: of `metrics.jsonl`.
        config: the run's settings.
    """
    first = [pull_at(row) for row in first_rows(rows)]
    left = [ratio for ratio in first if ratio is not None and not healthy(ratio)]
    if not left:
        return ""
    pull = of_step({"pull": median(left)}, config)
    return f"In {len(left)} of the first {len(first)} updates: {str(pull)[:1].lower()}{str(pull)[1:]}" if pull else ""


def held_weights(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What each reward's gradient is multiplied by at the end of a run whose scale is measured, by its name, without
    what a schedule or a KL budget makes of it."""
    start = metric_name("scale", reward_term(""))
    last = next((row for row in reversed(rows) if any(name.startswith(start) for name in row)), {})
    factor = last.get("scale_factor", 1.0) * last.get("kl_factor", 1.0)
    if not factor:
        return {}
    return {name.removeprefix(start): value / factor for name, value in last.items() if name.startswith(start)}


def pull_in_words(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> str:
    """A run's pull, the updates it is of, and what holds it, for the report; empty where it had none."""
    first = first_rows(rows)
    if not first:
        return ""
    middle = f"{median(pull_at(row) or 0.0 for row in first):.2g}"
    over = f"updates {first[0]['step']:.0f} to {first[-1]['step']:.0f}"
    if not config.measures_pull:
        return f"{middle}, the median over {over}; reward_scale {config.alpha_rew:g}"
    text = f"{config.pull:g} of the divergence's, measured over {over} ({middle}) and held"
    weights = held_weights(rows)
    if not weights:
        return text
    if len(weights) == 1:
        ((name, weight),) = weights.items()
        own = config.rewards.get(name, 1.0)
        if own:
            return f"{text}; the same as reward_scale={weight / own:.3g}"
    named = ",".join(f"{name}={weight:.3g}" for name, weight in weights.items())
    return f"{text}; the same as reward_scale=1 with the weights {named}"
