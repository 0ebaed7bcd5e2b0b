"""Which prompts a run's picture and page show: those that gained most, and some drawn at random. No hand picks any.

A prompt's gain is the score of its image after the training less that of its image before, from the same noise, the
first of the comparison. By which score: the judge's where the run has one, or else that of a reward that was only
measured, or else that trained on, of several their weighted sum; where nothing was scored there are only drawn prompts.

The largest of many gains are the best cases and no typical ones, whatever the training did. So whoever shows them says
so, says of what share of all prompts the score rose, and shows beside them prompts that are drawn whatever became of
them: those with the smallest SHA-256 of their text, which depends on no machine, seed or score.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from ..evaluation.intervals import Interval, share_interval

if TYPE_CHECKING:
    from ..evaluation.comparison import ColumnScores

STRIP = 6
"""Prompts of the largest gains, and as many drawn ones."""
WHOLE = 2 * STRIP
"""Where there are no more prompts than this, all of them are shown."""

Role = Literal["judge", "measured", "trained", "lowered", ""]
"""What the score that gains are taken by is to the run: `lowered` was trained to fall, and a fall is its gain; empty
without a score."""


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt by its row in the comparison, and the score of its images before and after, where there is one."""

    row: int
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class ShownPrompts:
    """The prompts that are shown.

    Attributes:
        prompts: how many were evaluated.
        by: names of the scores that gains are taken by: one, or several trained rewards that are added by their
            weights; empty where there is none.
        role: what these scores are to the run.
        gained: the largest gains, falling; all prompts where all are shown and scored.
        drawn: prompts drawn at random; all where all are shown and nothing was scored.
        better: the share of all prompts whose score, its mean over noises, rose; equal ones count half.
    """

    prompts: int
    by: Sequence[str]
    role: Role
    gained: Sequence[ShownPrompt]
    drawn: Sequence[ShownPrompt]
    better: Interval | None

    def as_dict(self) -> dict[str, Any]:
        """What `summary.json` holds under `picture`."""
        return {
            "prompts": self.prompts,
            "by": list(self.by),
            "role": self.role,
            "gained": [asdict(one) for one in self.gained],
            "drawn": [asdict(one) for one in self.drawn],
            "better": self.better.as_dict() if self.better is not None else None,
        }


@dataclass(frozen=True)
class Ranking:
    """The score that gains are taken by.

    Attributes:
        by: names of the rewards.
        role: what they are to the run.
        before: `(P, S)`, of the images before.
        after: of those after.
    """

    by: Sequence[str]
    role: Role
    before: Float[Tensor, "prompts seeds"]
    after: Float[Tensor, "prompts seeds"]

    @property
    def gains(self) -> Float[Tensor, "prompts seeds"]:
        """What each prompt's image gained from each noise, in float64."""
        difference = self.after.double() - self.before.double()
        return -difference if self.role == "lowered" else difference


def find_ranking(scores: ColumnScores, judge: str | None, weights: Mapping[str, float]) -> Ranking | None:
    """The score by which gains are taken; None where no score is of both columns, `before` and `after`.

    Args:
        scores: by reward, then by column.
        judge: which of them is the judge.
        weights: of those that are trained on; rewards held above a floor have one as well.
    """
    compared = {name: columns for name, columns in scores.items() if {"before", "after"} <= columns.keys()}
    if judge is not None and judge in compared:
        return Ranking([judge], "judge", compared[judge]["before"], compared[judge]["after"])
    for name, columns in compared.items():
        if name not in weights and name != judge:
            return Ranking([name], "measured", columns["before"], columns["after"])
    trained = [name for name in compared if weights.get(name)]
    if not trained:
        return None
    if len(trained) == 1:
        columns = compared[trained[0]]
        role: Role = "trained" if weights[trained[0]] > 0 else "lowered"
        return Ranking(trained, role, columns["before"], columns["after"])
    before, after = (sum(weights[name] * compared[name][column] for name in trained) for column in ("before", "after"))
    return Ranking(trained, "trained", before, after)  # type: ignore[arg-type]


def choose_prompts(prompts: Sequence[str], ranking: Ranking | None) -> ShownPrompts:
    """Choose the prompts that are shown, by the module's rule.

    Args:
        prompts: all that were evaluated.
        ranking: their scores; None where there are none.
    """
    drawn = sorted(range(len(prompts)), key=lambda row: hashlib.sha256(prompts[row].encode()).digest())
    whole = len(prompts) <= WHOLE
    if ranking is None:
        rows = range(len(prompts)) if whole else drawn[:WHOLE]
        return ShownPrompts(len(prompts), (), "", (), [ShownPrompt(row) for row in rows], None)
    means = ranking.gains.mean(1)
    better = share_interval((means > 0).double() + (means == 0).double() / 2)
    gains = ranking.gains[:, 0].tolist()
    order = sorted(range(len(prompts)), key=lambda row: (-gains[row], row))
    gained = order if whole else unlike([row for row in order if gains[row] > 0], prompts)[:STRIP]

    def shown(rows: Sequence[int]) -> list[ShownPrompt]:
        return [ShownPrompt(row, ranking.before[row, 0].item(), ranking.after[row, 0].item()) for row in rows]

    others = () if whole else shown(drawn[: STRIP if gained else WHOLE])
    return ShownPrompts(len(prompts), ranking.by, ranking.role, shown(gained), others, better)


def unlike(rows: Sequence[int], prompts: Sequence[str]) -> list[int]:
    """The first `STRIP` of the rows, of which no two have prompts that are alike while there are enough others.

    Else a strip could show one emoji on five backgrounds.
    """
    kept: list[int] = []
    for row in rows:
        if len(kept) < STRIP and not any(alike(prompts[row], prompts[other]) for other in kept):
            kept.append(row)
    kept += [row for row in rows if row not in kept][: STRIP - len(kept)]
    return [row for row in rows if row in kept]


def alike(a: str, b: str) -> bool:
    """Whether two prompts share at least half of the words that either has."""
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (a, b))
    return 2 * len(first & second) >= len(first | second)


def any_alike(prompts: Sequence[str]) -> bool:
    """Whether two of the prompts are alike."""
    return any(alike(a, b) for a, b in combinations(prompts, 2))


def recorded_prompts(record: Any, count: int) -> ShownPrompts | None:
    """What `as_dict` wrote; None where a summary holds nothing of the kind, as older ones do, or of other prompts.

    Args:
        record: of the summary.
        count: of the comparison's prompts.
    """
    try:
        if record["prompts"] != count or record["role"] not in get_args(Role):
            return None
        gained, drawn = ([_shown_prompt(one, count) for one in record[part]] for part in ("gained", "drawn"))
        better = record["better"]
        share = None if better is None else Interval(*(float(better[end]) for end in ("mean", "low", "high")))
        return ShownPrompts(count, [str(name) for name in record["by"]], record["role"], gained, drawn, share)
    except (KeyError, TypeError, ValueError):
        return None


def _shown_prompt(one: Mapping[str, Any], count: int) -> ShownPrompt:
    row, scores = int(one["row"]), [one["before"], one["after"]]
    if not 0 <= row < count:
        raise ValueError(f"There is no prompt {row}; expected a number below {count}.")
    values = [None if score is None else float(score) for score in scores]
    if not all(value is None or math.isfinite(value) for value in values):
        raise ValueError(f"The scores of prompt {row} are {values}; expected finite numbers.")
    return ShownPrompt(row, *values)
